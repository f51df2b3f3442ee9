/** Where readers register for news. */
export interface News {
  join(reader: ReaderWake): void;
  leave(reader: ReaderWake): void;
}

/** Wakes one reader of a turn, when there is news or its signal aborts. A reader looks again itself what it is. */
export class ReaderWake implements Disposable {
  readonly #signal: AbortSignal;
  #news: News | undefined;
  #resolve: (() => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    // Once for all of its waits: to come and go with each is dear.
    signal.addEventListener("abort", this.wake);
  }

  /** Once; disposing leaves it again. */
  join(news: News): void {
    this.#news = news;
    news.join(this);
  }

  readonly wake = (): void => {
    const resolve = this.#resolve;
    this.#resolve = undefined;
    resolve?.();
  };

  /** Resolves with the next wake; at once when the signal has aborted. Nothing may be awaited between a look and this. */
  // Not async: a reader waits here for most of its life, and a frame more for each is memory.
  // oxlint-disable-next-line typescript/promise-function-async
  next(): Promise<void> {
    if (this.#signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  [Symbol.dispose](): void {
    this.#news?.leave(this);
    this.#signal.removeEventListener("abort", this.wake);
  }
}
