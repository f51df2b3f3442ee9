import { FairSlots, type Slot } from "../../time/fair-slots.ts";

/** After each body, how much longer than its work the event loop is left to others. */
const PAUSE_FACTOR = 3;
const MAX_PAUSE_MS = 1_000;

/**
 * Lets one large body be worked on at a time. Parsing, checking and encoding a large body holds the event loop, so after
 * each one the loop is left to others for three times as long. Callers take turns: the one with many bodies waits
 * for itself only. The bytes of waiting bodies count as held (see BodyBudget), which bounds the queue.
 */
export class LargeBodies {
  readonly #slots = new FairSlots(1);

  /**
   * Resolves when this body's turn has come. The work that follows without waiting for I/O belongs to the turn. Rejects
   * if the signal aborts before.
   */
  async enter(caller: string, signal: AbortSignal): Promise<void> {
    const slot = await this.#slots.take(caller, signal);
    leaveLater(slot, performance.now());
  }
}

/** A turn's request is encoded for its engine two iterations of the event loop later. */
function leaveLater(slot: Slot, startedAt: number): void {
  setImmediate(() =>
    setImmediate(() =>
      setImmediate(() => {
        const pauseMs = Math.min(PAUSE_FACTOR * (performance.now() - startedAt), MAX_PAUSE_MS);
        setTimeout(() => slot.release(), pauseMs);
      }),
    ),
  );
}
