import type { ObservedEngine } from "../../engines/reconcile/reconciler.ts";
import type { RunContext } from "../upstream/run-context.ts";

type Observer = RunContext["reconciler"];

/**
 * Turns of one engine that ask during one observation share it. Otherwise each request would make the reconcile in
 * progress observe the engine again, and all turns would wait for the last observation.
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
