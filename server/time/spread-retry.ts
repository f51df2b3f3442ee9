/** A time to try again, between the given one and twice that. Callers that were refused together come back apart. */
export function spreadRetry(retryMs: number): number {
  return Math.ceil(retryMs * (1 + Math.random()));
}
