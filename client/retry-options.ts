/** How long the client tries again after a failure. */
export interface RetryOptions {
  /** The first pause. Each later pause is twice as long, up to `maxDelayMs`. Jitter shortens a pause by up to half. */
  firstDelayMs: number;
  maxDelayMs: number;
  /** The client tries a call again for this long after its first failure. */
  callForMs: number;
  /** Reading a turn fails with CONNECTION_LOST after its stream has brought nothing for this long. */
  streamForMs: number;
}

export const DEFAULT_RETRY: RetryOptions = {
  firstDelayMs: 100,
  maxDelayMs: 5_000,
  callForMs: 30_000,
  streamForMs: 120_000,
};

interface Setback {
  /** How many attempts in a row have failed, from 1. */
  failures: number;
  replicas: number;
  /** The pause that the server or a gateway asked for. The caller limits it. */
  retryAfterMs?: number | undefined;
}

/** The delay is 0 until every replica has failed. Then it doubles after each round. Jitter keeps clients out of step. */
export function toDelayMs(options: RetryOptions, { failures, replicas, retryAfterMs = 0 }: Setback): number {
  if (failures % replicas !== 0) return 0;
  const round = failures / replicas - 1;
  const delayMs = Math.min(options.firstDelayMs * 2 ** Math.min(round, 30), options.maxDelayMs);
  const jittered = delayMs * (0.5 + Math.random() / 2);
  return Math.max(jittered, retryAfterMs);
}
