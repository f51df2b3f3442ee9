/**
 * Who of those that wait, in order of waiting, is written when not everything can be: half of the room goes to those
 * with the least, so that the ends and the few events of many turns do not wait for the floods of some, and the other
 * half to who waits longest, so that those get on, too.
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
  // The first of them in any case: it may be larger than the room.
  chooseUntil(Math.max(maxBytes, bytes + 1), due.slice(0, 1));
  chooseUntil(maxBytes, due);
  return chosen;
}
