/**
 * Chooses from the due turns, longest wait first, when one commit cannot take them all. Half of the room goes to the
 * turns with the least to write, so that ends and single events never wait for floods. The other half goes to the
 * turns that waited longest, so that floods progress too.
 */
export function chooseFairly<Turn extends { readonly unwrittenBytes: number }>(
  due: readonly Turn[],
  maxBytes: number,
): Iterable<Turn> {
  const total = due.reduce((sum, turn) => sum + turn.unwrittenBytes, 0);
  if (total <= maxBytes) return due;
  const chosen = new Set<Turn>();
  let bytes = 0;
  const chooseUntil = (limit: number, turns: readonly Turn[]) => {
    for (const turn of turns) {
      if (bytes >= limit) return;
      if (!chosen.has(turn)) bytes += turn.unwrittenBytes;
      chosen.add(turn);
    }
  };
  chooseUntil(
    maxBytes / 2,
    due.toSorted((a, b) => a.unwrittenBytes - b.unwrittenBytes),
  );
  // Always the one that waited longest: it may be larger than the room.
  chooseUntil(Math.max(maxBytes, bytes + 1), due.slice(0, 1));
  chooseUntil(maxBytes, due);
  return chosen;
}
