import { DomainError, type EngineErrorDetail, type Reason } from "../errors.ts";

export interface Refusal {
  /** True when the engine did nothing: the caller may start a turn again with this id. */
  isFinal: boolean;
  error: DomainError;
}

/** Why an engine answers 409, and when to start the turn again. */
export interface BusyTask {
  message: string;
  retryAfterMs: number;
}

/**
 * Turns an answer to `/execute` that is no stream into the error for the caller who started the turn. `explainBusy` is
 * called for a 409 only: it may ask the database.
 */
export async function toRefusal(
  engineError: EngineErrorDetail,
  explainBusy: () => Promise<BusyTask>,
): Promise<Refusal> {
  const isFinal = engineError.status === 503 || (engineError.status >= 400 && engineError.status < 500);
  return { isFinal, error: await toError(engineError, explainBusy) };
}

async function toError(
  engineError: EngineErrorDetail,
  explainBusy: () => Promise<BusyTask>,
): Promise<DomainError> {
  const { status, code } = engineError;
  const fail = (reason: Reason, message: string, retryAfterMs?: number) =>
    new DomainError(reason, message, { engineError, retryAfterMs });
  if (status === 401) return fail("ENGINE_ERROR", "the engine refused its key");
  if (status === 409) {
    const { message, retryAfterMs } = await explainBusy();
    return fail("TURN_IN_PROGRESS", message, retryAfterMs);
  }
  if (status === 503) return fail("ENGINE_UNHEALTHY", "the engine is starting or draining", 1_000);
  if (status === 404 || status === 405) {
    return fail("NOT_SUPPORTED_BY_ENGINE", `the engine does not support /execute (status ${status})`);
  }
  return fail("ENGINE_ERROR", `the engine answered ${status} (${code})`);
}
