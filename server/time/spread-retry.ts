/**
 * A time to try again in milliseconds: the given one, and up to `spreadMs` more. Callers that were refused together come
 * back apart. At least 1.
 */
export function spreadRetry(retryMs: number, spreadMs = retryMs): number {
  return Math.max(1, Math.ceil(retryMs + Math.random() * spreadMs));
}
