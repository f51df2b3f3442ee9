import { setMaxListeners } from "node:events";
import { EngineError, engineStopping } from "./engine-error.ts";

/** The busy tasks and the turns that have not ended. A task becomes free before its turn sends the last event. */
export class TurnsInFlight {
  readonly #busyTasks = new Set<string>();
  readonly #turns = new Set<Promise<void>>();
  readonly #abort = new AbortController();

  constructor() {
    // Each turn adds one listener. This turns off Node's warning about a leak.
    setMaxListeners(0, this.#abort.signal);
  }

  get size(): number {
    return this.#turns.size;
  }

  /** Aborts when the turns must end. They then end with an error. */
  get abortSignal(): AbortSignal {
    return this.#abort.signal;
  }

  reserve(taskId: string): void {
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
  async allEnded(): Promise<void> {
    await Promise.allSettled(this.#turns);
  }

  abort(): void {
    this.#abort.abort(engineStopping("the engine stopped before the turn ended"));
  }
}
