/** What wakes its readers when it has something new. */
export interface WakeSource {
  join(reader: ReaderWake): void;
  leave(reader: ReaderWake): void;
}

/** Wakes one reader when its turn has something new or its signal aborts. The reader finds out itself which. */
export class ReaderWake implements Disposable {
  readonly #signal: AbortSignal;
  #source: WakeSource | undefined;
  #resolve: (() => void) | undefined;
  #handleWake: (() => boolean) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    // One listener for all waits: adding and removing one for each wait is expensive.
    signal.addEventListener("abort", this.wake);
  }

  /** Joins one source at a time. Disposing leaves it. */
  join(source: WakeSource): void {
    this.#source = source;
    source.join(this);
  }

  leave(): void {
    this.#source?.leave(this);
    this.#source = undefined;
  }

  readonly wake = (): void => {
    const resolve = this.#resolve;
    if (resolve === undefined || this.#handleWake?.() === true) return;
    this.#resolve = undefined;
    this.#handleWake = undefined;
    resolve();
  };

  /**
   * Resolves with the next wake; at once after an abort. Call it without an await after the last check. `handleWake` handles
   * a wake at once, without a promise: it returns true if the reader waits on. It must not throw.
   */
  // Not async: a reader waits here for most of its life, and an async frame for each costs memory.
  // oxlint-disable-next-line typescript/promise-function-async
  next(handleWake?: () => boolean): Promise<void> {
    if (this.#signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#handleWake = handleWake;
    });
  }

  [Symbol.dispose](): void {
    this.leave();
    this.#signal.removeEventListener("abort", this.wake);
  }
}
