import type { Clock } from "../../time/clock.ts";

const MAX_OPEN_QUESTIONS = 1_000;

/** Notices an engine that has said nothing for too long, but for the time in which it cannot or need not speak. */
export class IdleWatchdog {
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #openQuestions = new Set<unknown>();
  #heardAt: number;
  #isPaused = false;
  #isStopped = false;
  #cancel: (() => void) | undefined;

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

  /** Calls back once the engine was silent for too long, unless it is stopped, before the start or after it. */
  start(onIdle: () => void): void {
    if (this.#isStopped) return;
    const now = this.#clock.now();
    if (this.#isPaused || this.#openQuestions.size > 0) this.#heardAt = now;
    const leftMs = this.#heardAt + this.#idleMs - now;
    if (leftMs <= 0) onIdle();
    else this.#cancel = this.#clock.after(leftMs, () => this.start(onIdle));
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
  }
}
