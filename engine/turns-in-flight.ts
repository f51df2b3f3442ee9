import { setMaxListeners } from "node:events";
import { EngineError, engineStopping } from "./engine-error.ts";

/** Which tasks are busy, and which turns are not yet over. A task is free again before its turn's last event is sent. */
export class TurnsInFlight {
  readonly #busyTasks = new Set<string>();
  readonly #turns = new Set<Promise<void>>();
  readonly #halt = new AbortController();

  constructor() {
    // One listener per turn is what is meant here, not a leak.
    setMaxListeners(0, this.#halt.signal);
  }

  get size(): number {
    return this.#turns.size;
  }

  /** Aborts when turns may run no longer; they then end with an error. */
  get haltSignal(): AbortSignal {
    return this.#halt.signal;
  }

  claim(taskId: string): void {
    if (this.#busyTasks.has(taskId)) {
      throw new EngineError(409, "TASK_BUSY", "a turn is in flight for this task");
    }
    this.#busyTasks.add(taskId);
  }

  release(taskId: string): void {
    this.#busyTasks.delete(taskId);
  }

  track(turn: Promise<void>): void {
    this.#turns.add(turn);
    void turn.finally(() => this.#turns.delete(turn));
  }

  /** Resolves when no turn is in flight. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#turns);
  }

  halt(): void {
    this.#halt.abort(engineStopping("the engine stopped before the turn was over"));
  }
}
