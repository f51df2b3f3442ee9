import type { Clock } from "../../time/clock.ts";
import type { Slot } from "../../time/fair-slots.ts";

/** Bounds the reconciles that work at once. */
export interface ReconcileSlots {
  /** undefined: every slot is taken. */
  tryTake(): Slot | undefined;
  /** Waits for a slot, fairly between products. undefined: this replica is shutting down. */
  wait(productId: string): Promise<Slot | undefined>;
}

/** A wait that ends sooner keeps the slot: most stops and most images take less. */
export const WAIT_HOLD_MS = 1_500;

/**
 * The slot of one reconcile. The reconcile gives it up while it only waits, and takes one again before it goes on. All
 * other work keeps the slot for its whole time, however long that is on a loaded machine.
 */
export class ReconcileSlot implements Disposable {
  readonly #slots: ReconcileSlots;
  readonly #productId: string;
  readonly #clock: Pick<Clock, "after">;
  #slot: Slot | undefined;

  constructor(
    slots: ReconcileSlots,
    { productId, clock }: { productId: string; clock: Pick<Clock, "after"> },
  ) {
    this.#slots = slots;
    this.#productId = productId;
    this.#clock = clock;
  }

  /**
   * Takes a slot, unless the reconcile has one. `waited`: things may have changed during the wait for a slot. `closing`:
   * there is no slot, because this replica is shutting down.
   */
  async hold(): Promise<"held" | "waited" | "closing"> {
    this.#slot ??= this.#slots.tryTake();
    if (this.#slot !== undefined) return "held";
    this.#slot = await this.#slots.wait(this.#productId);
    return this.#slot === undefined ? "closing" : "waited";
  }

  /** Gives the slot up, if the work takes long. Only for work that mostly waits. The caller calls `hold` afterwards. */
  async releaseDuring<T>(work: () => Promise<T>): Promise<T> {
    const cancel = this.#clock.after(WAIT_HOLD_MS, () => this.release());
    return work().finally(cancel);
  }

  release(): void {
    this.#slot?.release();
    this.#slot = undefined;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
