import { DomainError, type EngineErrorDetail } from "../errors.ts";

export interface Refusal {
  /** The engine clearly did nothing: the turn may be tried again under its id. */
  isFinal: boolean;
  error: DomainError;
}

/** What an engine's answer other than a stream means to whoever wanted the turn. */
export function toRefusal(engineError: EngineErrorDetail): Refusal {
  const { status, code } = engineError;
  const said = `the engine answered ${status} (${code})`;
  if (status === 401) return refuse("ENGINE_ERROR", "the engine refused its key", { engineError });
  if (status === 409) {
    return refuse("TURN_IN_PROGRESS", "the engine is still busy with this task", {
      engineError,
      retryAfterMs: 1_000,
    });
  }
  if (status === 404 || status === 405) {
    return refuse("NOT_SUPPORTED_BY_ENGINE", "the engine has no /execute", { engineError });
  }
  if (status === 503) {
    return refuse("ENGINE_UNHEALTHY", "the engine is starting or draining", {
      engineError,
      retryAfterMs: 1_000,
    });
  }
  const isFinal = status >= 400 && status < 500;
  return { isFinal, error: new DomainError("ENGINE_ERROR", said, { engineError }) };
}

function refuse(...error: ConstructorParameters<typeof DomainError>): Refusal {
  return { isFinal: true, error: new DomainError(...error) };
}
