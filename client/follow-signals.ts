type Source = AbortSignal | undefined;

interface Followed {
  followers: Set<AbortController>;
  onAbort: () => void;
}

const followed = new WeakMap<AbortSignal, Followed>();

/**
 * Aborts the controller with the first of the signals that aborts, at once when one has; until what is returned is
 * called. However many follow a signal it has one listener: AbortSignal.any leaves something behind on a signal that
 * lives long before Node 24, and Node 20 warns of more than ten listeners.
 */
export function followSignals(follower: AbortController, sources: readonly Source[]): () => void {
  const given = sources.filter((source) => source !== undefined);
  const aborted = given.find((source) => source.aborted);
  if (aborted) {
    follower.abort(aborted.reason);
    return () => {};
  }
  for (const source of given) join(source, follower);
  return () => {
    for (const source of given) leave(source, follower);
  };
}

function join(source: AbortSignal, follower: AbortController): void {
  const known = followed.get(source);
  if (known) {
    known.followers.add(follower);
    return;
  }
  const followers = new Set([follower]);
  const onAbort = () => {
    for (const one of followers) one.abort(source.reason);
  };
  followed.set(source, { followers, onAbort });
  source.addEventListener("abort", onAbort, { once: true });
}

function leave(source: AbortSignal, follower: AbortController): void {
  const known = followed.get(source);
  known?.followers.delete(follower);
  if (known?.followers.size !== 0) return;
  source.removeEventListener("abort", known.onAbort);
  followed.delete(source);
}
