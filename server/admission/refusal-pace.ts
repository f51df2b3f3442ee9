import { LRUCache } from "lru-cache";

/** So many refusals of a product are answered at once before they are paced. */
const BURST = 20;
/** After the burst, a product gets a refusal each so many milliseconds. */
const INTERVAL_MS = 20;
/** No refusal waits longer. */
export const MAX_DELAY_MS = 1_000;
const MAX_PRODUCTS = 10_000;

/**
 * Spaces the refusals of each product. A refused call costs no statement, and still the time of the process that parses
 * and answers it. A caller who repeats refused calls without a pause would otherwise get as many answers as the process can
 * make, at the expense of all other products.
 */
export class RefusalPace {
  /** When the next refusal of a product is due, in milliseconds of `performance.now()`. */
  readonly #dueMs = new LRUCache<string, number>({ max: MAX_PRODUCTS });

  /** How long to hold a refusal that is made now. */
  take(productId: string, nowMs: number): number {
    const freeMs = nowMs - BURST * INTERVAL_MS;
    const dueMs = Math.max(freeMs, this.#dueMs.get(productId) ?? freeMs) + INTERVAL_MS;
    // Beyond the longest delay nothing is gained, and later refusals must not wait for what is over.
    const keptMs = Math.min(dueMs, nowMs + MAX_DELAY_MS);
    this.#dueMs.set(productId, keptMs);
    return Math.max(0, keptMs - nowMs);
  }
}
