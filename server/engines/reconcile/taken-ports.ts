import type { Clock } from "../../time/clock.ts";

const AVOID_MS = 600_000;

/** Host ports that another program on this machine holds. Each is avoided for ten minutes. */
export class TakenPorts {
  readonly #takenAt = new Map<number, number>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(port: number): void {
    this.#takenAt.set(port, this.#clock.now());
  }

  list(): number[] {
    for (const [port, takenAt] of this.#takenAt) {
      if (this.#clock.now() - takenAt > AVOID_MS) this.#takenAt.delete(port);
    }
    return [...this.#takenAt.keys()];
  }
}
