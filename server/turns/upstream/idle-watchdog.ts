import type { Clock } from "../../time/clock.ts";
import type { OpenQuestions } from "../model/open-questions.ts";

export interface IdleLimits {
  /** How long the engine may be silent. */
  idleMs: number;
  /** How long a question may wait for a person's answer. Meanwhile the engine may be silent. */
  personMs: number;
}

/** What has lasted for too long. */
export type IdleCause = "silence" | "waiting_for_person";

/**
 * Detects an engine that is silent for too long, and a question that nobody answers. The silence does not count while
 * the engine waits for a person or for us.
 */
export class IdleWatchdog {
  readonly #clock: Clock;
  readonly #limits: IdleLimits;
  readonly #questions: OpenQuestions;
  #lastByteAt: number;
  #isPaused = false;
  #isStopped = false;
  #onIdle: ((cause: IdleCause) => void) | undefined;
  #nextCheckAt = Infinity;
  #cancelCheck: (() => void) | undefined;

  constructor(clock: Clock, limits: IdleLimits, questions: OpenQuestions) {
    this.#clock = clock;
    this.#limits = limits;
    this.#questions = questions;
    this.#lastByteAt = clock.now();
  }

  received(nowMs: number): void {
    this.#lastByteAt = nowMs;
  }

  /** Call this while we do not read the engine's stream. */
  pause(): void {
    this.#isPaused = true;
  }
  resume(): void {
    this.#isPaused = false;
    this.#onChange();
  }

  /** Calls back once one of the limits is reached. Does nothing after `stop`. */
  start(onIdle: (cause: IdleCause) => void): void {
    if (this.#isStopped) return;
    this.#onIdle = onIdle;
    this.#questions.onChange(() => this.#onChange());
    this.#check();
  }

  stop(): void {
    this.#isStopped = true;
    this.#onIdle = undefined;
    this.#questions.onChange(undefined);
    this.#cancelCheck?.();
  }

  /** An engine whose question is answered gets the whole time to continue. A new question may bring the next check forward. */
  #onChange(): void {
    this.#lastByteAt = this.#clock.now();
    if (this.#personAt < this.#nextCheckAt) this.#check();
  }

  get #personAt(): number {
    const { oldest } = this.#questions;
    // The answer may be in what we do not read.
    return this.#isPaused || oldest === undefined ? Infinity : oldest.askedAt + this.#limits.personMs;
  }

  #check(): void {
    this.#cancelCheck?.();
    const now = this.#clock.now();
    if (this.#isPaused || !this.#questions.isEmpty) this.#lastByteAt = now;
    const silentAt = this.#lastByteAt + this.#limits.idleMs;
    const personAt = this.#personAt;
    if (now >= Math.min(silentAt, personAt)) {
      this.#onIdle?.(now >= personAt ? "waiting_for_person" : "silence");
      return;
    }
    this.#nextCheckAt = Math.min(silentAt, personAt);
    this.#cancelCheck = this.#clock.after(this.#nextCheckAt - now, () => this.#check());
  }
}
