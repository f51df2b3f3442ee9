/** After each body, how much longer than its work the event loop is left to others. */
const PAUSE_FACTOR = 3;
const MAX_PAUSE_MS = 1_000;

/**
 * Lets one large body be worked on at a time. Parsing, checking and encoding a large body holds the event loop, so after
 * each one the loop is left to others for three times as long. Callers take turns: the one with many bodies waits
 * for itself only. The bytes of waiting bodies count as held (see BodyBudget), which bounds the queue.
 */
export class LargeBodies {
  /** Whose turn is next, in this order. Each caller's own bodies wait in the order of their arrival. */
  readonly #waiting = new Map<string, (() => void)[]>();
  #isBusy = false;

  /** Resolves when this body's turn has come. The work that follows without waiting for I/O belongs to the turn. */
  async enter(caller: string): Promise<void> {
    if (this.#isBusy) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const queue = this.#waiting.get(caller);
      if (queue) queue.push(resolve);
      else this.#waiting.set(caller, [resolve]);
      await promise;
    }
    this.#isBusy = true;
    this.#leaveLater(performance.now());
  }

  /** A turn's request is encoded for its engine two iterations of the event loop later. */
  #leaveLater(startedAt: number): void {
    setImmediate(() =>
      setImmediate(() =>
        setImmediate(() => {
          const pauseMs = Math.min(PAUSE_FACTOR * (performance.now() - startedAt), MAX_PAUSE_MS);
          setTimeout(() => this.#leave(), pauseMs);
        }),
      ),
    );
  }

  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#isBusy = false;
      return;
    }
    const [caller, [enter, ...rest]] = next;
    this.#waiting.delete(caller);
    if (rest.length > 0) this.#waiting.set(caller, rest);
    enter?.();
  }
}
