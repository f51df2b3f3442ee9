import type { Clock } from "../../time/clock.ts";

const AVOID_MS = 600_000;
const RECENT_MS = 30_000;

/** Host ports that another program on this machine held. Each is avoided for ten minutes, if there are other ports. */
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

  /** Ports that another program held a moment ago. No engine gets one of them, even if there is no other port. */
  listRecent(): number[] {
    return this.list().filter((port) => this.#clock.now() - (this.#takenAt.get(port) ?? 0) <= RECENT_MS);
  }
}
