import { EngineError, engineStopping, TurnCancelled } from "./engine-error.ts";

interface BusyTask {
  /** Aborts when the task's turn must end. Its reason is the error that the turn ends with. */
  readonly end: AbortController;
  readonly freed: PromiseWithResolvers<void>;
}

/** The busy tasks and the turns that have not ended. A task becomes free before its turn sends the last event. */
export class TurnsInFlight {
  readonly #busyTasks = new Map<string, BusyTask>();
  readonly #turns = new Set<Promise<void>>();

  get size(): number {
    return this.#turns.size;
  }

  /** Makes a task busy. Returns a signal that aborts when its turn must end, with the error as its reason. */
  reserve(taskId: string): AbortSignal {
    if (this.#busyTasks.has(taskId)) {
      throw new EngineError(409, "TASK_BUSY", "a turn is in flight for this task");
    }
    const task = { end: new AbortController(), freed: Promise.withResolvers<void>() };
    this.#busyTasks.set(taskId, task);
    return task.end.signal;
  }

  release(taskId: string): void {
    this.#busyTasks.get(taskId)?.freed.resolve();
    this.#busyTasks.delete(taskId);
  }

  track(turn: Promise<void>): void {
    this.#turns.add(turn);
    void turn.finally(() => this.#turns.delete(turn));
  }

  /** Ends the turn of a task, and resolves with true once the task is free. False: the task has no turn in flight. */
  async cancel(taskId: string): Promise<boolean> {
    const task = this.#busyTasks.get(taskId);
    if (task === undefined) return false;
    task.end.abort(new TurnCancelled());
    await task.freed.promise;
    return true;
  }

  /** Resolves when no turn is in flight. */
  async allEnded(): Promise<void> {
    await Promise.allSettled(this.#turns);
  }

  abort(): void {
    const reason = engineStopping("the engine stopped before the turn ended");
    for (const task of this.#busyTasks.values()) task.end.abort(reason);
  }
}
