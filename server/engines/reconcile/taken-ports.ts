import type { Clock } from "../../time/clock.ts";

const FORGET_AFTER_MS = 600_000;

/** Host ports that something else on this machine was seen to hold; forgotten after ten minutes. */
export class TakenPorts {
  readonly #seenAt = new Map<number, number>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(port: number): void {
    this.#seenAt.set(port, this.#clock.now());
  }

  list(): number[] {
    for (const [port, seenAt] of this.#seenAt) {
      if (this.#clock.now() - seenAt > FORGET_AFTER_MS) this.#seenAt.delete(port);
    }
    return [...this.#seenAt.keys()];
  }
}
