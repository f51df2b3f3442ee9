import { DomainError, type EngineErrorDetail } from "../errors.ts";

export interface Refusal {
  /** True when the engine did nothing: the caller may start a turn again with this id. */
  isFinal: boolean;
  error: DomainError;
}

/** Turns an answer to `/execute` that is no stream into the error for the caller who started the turn. */
export function toRefusal(engineError: EngineErrorDetail): Refusal {
  const { status, code } = engineError;
  if (status === 401) return refuse("ENGINE_ERROR", "the engine refused its key", { engineError });
  if (status === 409) {
    return refuse("TURN_IN_PROGRESS", "the engine is still running a turn of this task", {
      engineError,
      retryAfterMs: 1_000,
    });
  }
  if (status === 404 || status === 405) {
    const message = `the engine does not support /execute (status ${status})`;
    return refuse("NOT_SUPPORTED_BY_ENGINE", message, { engineError });
  }
  if (status === 503) {
    return refuse("ENGINE_UNHEALTHY", "the engine is starting or draining", {
      engineError,
      retryAfterMs: 1_000,
    });
  }
  const isFinal = status >= 400 && status < 500;
  const message = `the engine answered ${status} (${code})`;
  return { isFinal, error: new DomainError("ENGINE_ERROR", message, { engineError }) };
}

function refuse(...error: ConstructorParameters<typeof DomainError>): Refusal {
  return { isFinal: true, error: new DomainError(...error) };
}
