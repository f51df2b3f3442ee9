import type { Clock } from "../../time/clock.ts";

const MAX_OPEN_QUESTIONS = 1_000;

/** Detects an engine that is silent for too long. The time does not count while it waits for a person or for us. */
export class IdleWatchdog {
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #openQuestions = new Set<unknown>();
  #lastByteAt: number;
  #isPaused = false;
  #isStopped = false;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, idleMs: number) {
    this.#clock = clock;
    this.#idleMs = idleMs;
    this.#lastByteAt = clock.now();
  }

  received(nowMs: number): void {
    this.#lastByteAt = nowMs;
  }

  /** The engine waits for a person's answer, for as long as that takes. */
  questionOpened(requestId: unknown): void {
    if (this.#openQuestions.size < MAX_OPEN_QUESTIONS) this.#openQuestions.add(requestId);
  }
  /** An answer without a request id answers all questions. */
  questionResolved(requestId: unknown): void {
    if (requestId === undefined) this.#openQuestions.clear();
    else this.#openQuestions.delete(requestId);
  }

  /** Call this while we do not read the engine's stream. */
  pause(): void {
    this.#isPaused = true;
  }
  resume(): void {
    this.#isPaused = false;
    this.#lastByteAt = this.#clock.now();
  }

  /** Calls back once the engine was silent for too long. Does nothing after `stop`. */
  start(onIdle: () => void): void {
    if (this.#isStopped) return;
    const now = this.#clock.now();
    if (this.#isPaused || this.#openQuestions.size > 0) this.#lastByteAt = now;
    const leftMs = this.#lastByteAt + this.#idleMs - now;
    if (leftMs <= 0) onIdle();
    else this.#cancel = this.#clock.after(leftMs, () => this.start(onIdle));
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
  }
}
