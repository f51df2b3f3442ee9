/**
 * The instant from which a key is refused, by the database's clock (`now`). undefined: an earlier revocation stands. The
 * instant never moves to a later one, so that nobody can give a leaked key more time.
 */
export function toRevokedAt(
  key: { revokedAt: string | null; now: string },
  graceSeconds: number,
): string | undefined {
  const atMs = Date.parse(key.now) + graceSeconds * 1_000;
  if (key.revokedAt !== null && Date.parse(key.revokedAt) <= atMs) return undefined;
  return new Date(atMs).toISOString();
}
