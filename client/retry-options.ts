/** How long the client tries again after a failure. */
export interface RetryOptions {
  /** The first pause. Each further one is twice as long, up to `maxDelayMs`; a random part is taken off. */
  firstDelayMs: number;
  maxDelayMs: number;
  /** For how long after its first failure a call is tried again. */
  callForMs: number;
  /** For how long a turn's stream may bring nothing before reading fails with CONNECTION_LOST. */
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
  /** The pause that the server asked for. */
  retryAfterMs?: number | undefined;
}

/** 0 until every replica has failed once; then doubling, with jitter so that clients do not retry in step. */
export function toDelayMs(options: RetryOptions, { failures, replicas, retryAfterMs = 0 }: Setback): number {
  if (failures % replicas !== 0) return 0;
  const round = failures / replicas - 1;
  const delayMs = Math.min(options.firstDelayMs * 2 ** Math.min(round, 30), options.maxDelayMs);
  const jittered = delayMs * (0.5 + Math.random() / 2);
  return Math.max(jittered, Math.min(retryAfterMs, options.maxDelayMs));
}
