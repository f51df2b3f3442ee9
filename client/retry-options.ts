/** How failures are waited out. */
export interface RetryOptions {
  /** The first pause; each further one is twice as long, up to `maxDelayMs`, and shortened by chance. */
  firstDelayMs: number;
  maxDelayMs: number;
  /** How long after its first failure a call is still tried again. */
  callForMs: number;
  /** How long the stream of a turn may go without any progress before it is given up. */
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
  /** What the server asked for. */
  retryAfterMs?: number | undefined;
}

/** None while there are replicas that were not asked yet; then doubling, with jitter, so that a herd spreads out. */
export function toDelayMs(options: RetryOptions, { failures, replicas, retryAfterMs = 0 }: Setback): number {
  if (failures % replicas !== 0) return 0;
  const round = failures / replicas - 1;
  const delayMs = Math.min(options.firstDelayMs * 2 ** Math.min(round, 30), options.maxDelayMs);
  const jittered = delayMs * (0.5 + Math.random() / 2);
  return Math.max(jittered, Math.min(retryAfterMs, options.maxDelayMs));
}
