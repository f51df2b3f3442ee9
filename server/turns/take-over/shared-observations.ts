import type { ObservedEngine } from "../../engines/reconcile/reconciler.ts";
import type { RunContext } from "../upstream/run-context.ts";

type Observer = RunContext["reconciler"];

/**
 * Observes each engine once for all of its turns that ask meanwhile. Each further request would make the reconcile in
 * progress observe the engine again, and all would wait for the last one.
 */
export class SharedObservations implements Observer {
  readonly #observer: Observer;
  readonly #running = new Map<string, Promise<ObservedEngine | undefined>>();

  constructor(observer: Observer) {
    this.#observer = observer;
  }

  async observeNow(engineId: string, waitMs?: number): Promise<ObservedEngine | undefined> {
    const running = this.#running.get(engineId);
    if (running) return running;
    const observing = this.#observer.observeNow(engineId, waitMs).finally(() => {
      this.#running.delete(engineId);
    });
    this.#running.set(engineId, observing);
    return observing;
  }
}
