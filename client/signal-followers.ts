type Source = AbortSignal | undefined;

interface Followed {
  followers: Set<AbortController>;
  onAbort: () => void;
}

/**
 * Lets many controllers abort with a long-lived signal, at the cost of one listener for each signal. Reasons: before
 * Node 24 `AbortSignal.any` leaks on long-lived signals, and Node 20 warns of more than ten listeners.
 */
export class SignalFollowers {
  readonly #followed = new WeakMap<AbortSignal, Followed>();

  /**
   * Aborts the controller with the first source that aborts; at once if one has aborted already. The caller must call
   * the returned function to end this.
   */
  follow(follower: AbortController, sources: readonly Source[]): () => void {
    const given = sources.filter((source) => source !== undefined);
    const aborted = given.find((source) => source.aborted);
    if (aborted) {
      follower.abort(aborted.reason);
      return () => {};
    }
    for (const source of given) this.#join(source, follower);
    return () => {
      for (const source of given) this.#leave(source, follower);
    };
  }

  #join(source: AbortSignal, follower: AbortController): void {
    const known = this.#followed.get(source);
    if (known) {
      known.followers.add(follower);
      return;
    }
    const followers = new Set([follower]);
    const onAbort = () => {
      for (const one of followers) one.abort(source.reason);
    };
    this.#followed.set(source, { followers, onAbort });
    source.addEventListener("abort", onAbort, { once: true });
  }

  #leave(source: AbortSignal, follower: AbortController): void {
    const known = this.#followed.get(source);
    known?.followers.delete(follower);
    if (known?.followers.size !== 0) return;
    source.removeEventListener("abort", known.onAbort);
    this.#followed.delete(source);
  }
}
