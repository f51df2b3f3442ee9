import type { Clock } from "../clock.ts";

const MAX_OPEN_QUESTIONS = 1_000;

/** Notices an engine that has said nothing for too long, but for the time in which it cannot or need not speak. */
export class IdleWatchdog {
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #openQuestions = new Set<unknown>();
  #heardAt: number;
  #isPaused = false;

  constructor(clock: Clock, idleMs: number) {
    this.#clock = clock;
    this.#idleMs = idleMs;
    this.#heardAt = clock.now();
  }

  heard(nowMs: number): void {
    this.#heardAt = nowMs;
  }

  /** A human is asked: that takes as long as it takes. */
  asked(requestId: unknown): void {
    if (this.#openQuestions.size < MAX_OPEN_QUESTIONS) this.#openQuestions.add(requestId);
  }
  /** An answer that does not say to what answers everything. */
  resolved(requestId: unknown): void {
    if (requestId === undefined) this.#openQuestions.clear();
    else this.#openQuestions.delete(requestId);
  }

  /** We are the ones who do not listen. */
  pause(): void {
    this.#isPaused = true;
  }
  resume(): void {
    this.#isPaused = false;
    this.#heardAt = this.#clock.now();
  }

  /** Calls back once the engine was silent for too long, unless the signal aborts before. */
  watch(signal: AbortSignal, onIdle: () => void): void {
    if (signal.aborted) return;
    const now = this.#clock.now();
    if (this.#isPaused || this.#openQuestions.size > 0) this.#heardAt = now;
    const leftMs = this.#heardAt + this.#idleMs - now;
    if (leftMs <= 0) {
      onIdle();
      return;
    }
    // No loop that waits: there is one of these for each turn, and a waiting function is memory.
    this.#clock.sleep(leftMs, signal).then(
      () => this.watch(signal, onIdle),
      () => {
        // The turn is over.
      },
    );
  }
}
