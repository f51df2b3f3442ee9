import { availableParallelism } from "node:os";
import { findEngineById } from "../../../db/engines.ts";
import { toErrorMessage } from "../../errors.ts";
import { abortable } from "../../time/abortable.ts";
import { FairSlots } from "../../time/fair-slots.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { reconcileEngine, type ReconcileOutcome } from "./reconcile-engine.ts";
import type { ReconcileSlots } from "./reconcile-slot.ts";
import type { BootsInProgress } from "./wait-for-boot.ts";

export interface ObservedEngine {
  generation: number;
  status: string;
  /** False: the runtime did not answer, so the engine may have changed since the row was written. */
  isCurrent: boolean;
}

interface RunningReconcile {
  done: Promise<ReconcileOutcome>;
  /** `reconcile` was called again. Its caller may have written after the row was last read. */
  again: boolean;
  /** A runtime event came after the last observation. */
  eventPending: boolean;
  /** Aborting it ends waits and image pulls, so that the row is read again. */
  wake: AbortController;
}

/** A stop may have an hour of grace. The runtime completes it without us, and the next process continues. */
const CLOSE_MS = 10_000;
const OBSERVE_NOW_MS = 1_000;

/**
 * Reconciles that work at once. Engines run on this machine: more boots and stops at once than it has cores for would
 * slow all calls to engines.
 */
export function toReconcileSlots(cores: number): number {
  return Math.max(4, 2 * cores);
}

/** Runs `reconcileEngine`, at most once at a time for each engine of this process. */
export class Reconciler {
  readonly #ctx: ReconcileContext;
  readonly #running = new Map<string, RunningReconcile>();
  readonly #closing = new AbortController();
  readonly #boots: BootsInProgress = { count: 0 };
  readonly #slots: ReconcileSlots;
  #resyncs = 0;

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    const slots = new FairSlots(toReconcileSlots(availableParallelism()));
    const { signal } = this.#closing;
    this.#slots = {
      tryTake: () => slots.tryTake(),
      wait: async (productId) =>
        slots.take(productId, signal).catch((error: unknown) => {
          if (signal.aborted) return undefined;
          throw error;
        }),
    };
  }

  /** Resyncs in progress. One that leads to work does not count any more: a slot bounds that work. */
  get resyncs(): number {
    return this.#resyncs;
  }

  /** Starts the periodic check of an engine. Does nothing while the engine is being reconciled. */
  resync(engineId: string): void {
    if (this.#running.has(engineId)) return;
    this.#resyncs += 1;
    let isCounted = true;
    this.#startLogged(engineId, () => {
      if (isCounted) this.#resyncs -= 1;
      isCounted = false;
    });
  }

  /**
   * Reconciles the engine until it is steady. Call it after a desired state was written. A reconcile in progress is
   * woken, reads the row again, and its outcome is returned. Rejects when the database fails.
   */
  async reconcile(engineId: string): Promise<ReconcileOutcome> {
    return this.#reconcile(engineId);
  }

  /** Waits for the reconcile in progress without asking for another one. Starts one if there is none. */
  async waitForReconcile(engineId: string): Promise<ReconcileOutcome> {
    return this.#running.get(engineId)?.done ?? this.reconcile(engineId);
  }

  /** Like `reconcile`, but does not wait. Errors are logged. */
  start(engineId: string): void {
    this.#startLogged(engineId);
  }

  /**
   * Makes the reconcile in progress observe the engine again. If it has already made its last observation, a second
   * reconcile follows. Callers of the first do not wait for the second.
   */
  onRuntimeEvent(engineId: string): void {
    const running = this.#running.get(engineId);
    if (running === undefined) return this.start(engineId);
    running.eventPending = true;
    running.wake.abort();
  }

  /**
   * Reconciles the engine for up to `waitMs` and returns its row; undefined: the engine is gone. If a boot begins,
   * the row shows it. If the runtime did not answer in time, the row may be outdated.
   */
  async observeNow(engineId: string, waitMs = OBSERVE_NOW_MS): Promise<ObservedEngine | undefined> {
    const timeout = AbortSignal.timeout(waitMs);
    const outcome = await abortable(this.reconcile(engineId), timeout).catch((error: unknown) => {
      if (!timeout.aborted) throw error;
      return undefined;
    });
    const row = await findEngineById(this.#ctx.db, engineId);
    return row && { generation: row.generation, status: row.status, isCurrent: outcome === "steady" };
  }

  /** Starts no further step, and waits for the steps in progress. The next process finishes the rest. */
  async close(): Promise<void> {
    this.#closing.abort();
    const running = [...this.#running.values()];
    for (const { wake } of running) wake.abort();
    const ended = Promise.allSettled(running.map(({ done }) => done));
    await abortable(ended, AbortSignal.timeout(CLOSE_MS)).catch(() => {
      this.#ctx.log.warn({ engines: this.#running.size }, "closed while runtime calls were in progress");
    });
  }

  /** `onProbed`: makes it a resync; called when the engine was probed, or when there was no probe. */
  #startLogged(engineId: string, onProbed?: () => void): void {
    if (this.#closing.signal.aborted) return onProbed?.();
    this.#reconcile(engineId, onProbed)
      .catch((error: unknown) => {
        this.#ctx.log.error({ engineId, error: toErrorMessage(error) }, "reconcile failed");
      })
      .finally(onProbed);
  }

  async #reconcile(engineId: string, onProbed?: () => void): Promise<ReconcileOutcome> {
    const running = this.#running.get(engineId);
    if (running !== undefined) {
      running.again = true;
      running.wake.abort();
      return running.done;
    }
    const begun: RunningReconcile = {
      done: Promise.resolve("steady"),
      again: false,
      eventPending: false,
      wake: new AbortController(),
    };
    this.#running.set(engineId, begun);
    begun.done = this.#run(engineId, begun, onProbed);
    return begun.done;
  }

  async #run(
    engineId: string,
    running: RunningReconcile,
    onProbed: (() => void) | undefined,
  ): Promise<ReconcileOutcome> {
    using _change = this.#ctx.keptEngines.changing(engineId);
    let outcome: ReconcileOutcome;
    try {
      do {
        // Only the first round can be a resync: a later caller needs an observation.
        const onProbedNow: (() => void) | undefined = running.again ? undefined : onProbed;
        running.again = false;
        running.wake = new AbortController();
        outcome = await this.#reconcileOnce(engineId, running, onProbedNow);
      } while (running.again && outcome !== "gone" && !this.#closing.signal.aborted);
    } finally {
      this.#running.delete(engineId);
    }
    if (running.eventPending && outcome !== "gone") this.start(engineId);
    return outcome;
  }

  #reconcileOnce(
    engineId: string,
    running: RunningReconcile,
    onProbed: (() => void) | undefined,
  ): Promise<ReconcileOutcome> {
    return reconcileEngine(this.#ctx, {
      engineId,
      isResync: onProbed !== undefined,
      onProbed: () => onProbed?.(),
      slots: this.#slots,
      wakeSignal: () => {
        if (running.wake.signal.aborted) running.wake = new AbortController();
        return running.wake.signal;
      },
      onObserve: () => {
        running.eventPending = false;
      },
      boots: this.#boots,
      closing: this.#closing.signal,
    });
  }
}
