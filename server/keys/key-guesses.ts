import { LRUCache } from "lru-cache";
import { DomainError } from "../errors.ts";

/** How many unknown keys one address may send at once, and then per second. */
const BURST = 50;
const PER_SECOND = 5;
/** The same for all addresses together. */
const BURST_OF_ALL = 500;
const PER_SECOND_OF_ALL = 50;
/** Refused keys that come again, from all addresses together. */
const BURST_OF_REPEATS = 100;
const PER_SECOND_OF_REPEATS = 10;
const MAX_ADDRESSES = 10_000;
const MAX_REFUSED = 20_000;
/** A refused key that comes again after this time is more than a guess: a guesser has no reason to repeat a key. */
const RETURN_AFTER_MS = 500;
/** An answered guess costs a query and a refused one nothing, so a refused caller waits at least this long. */
const MIN_RETRY_AFTER_MS = 1_000;

interface Rate {
  burst: number;
  perSecond: number;
}
const RATE: Rate = { burst: BURST, perSecond: PER_SECOND };
const RATE_OF_ALL: Rate = { burst: BURST_OF_ALL, perSecond: PER_SECOND_OF_ALL };
const RATE_OF_REPEATS: Rate = { burst: BURST_OF_REPEATS, perSecond: PER_SECOND_OF_REPEATS };

/**
 * Bounds how many unknown keys are looked up, for each address and in all. Each look-up takes from the allowances
 * before it begins, and gives back if the key turns out to be valid. So valid keys use nothing up.
 *
 * A key that was refused and comes again has allowances of its own. So a new valid key is accepted at its second attempt,
 * even while another program at the same address guesses keys.
 */
export class KeyGuesses {
  readonly #addresses = new LRUCache<string, Allowance>({ max: MAX_ADDRESSES });
  readonly #all = new Allowance(RATE_OF_ALL);
  readonly #allRepeats = new Allowance(RATE_OF_REPEATS);
  /** When each refused key was refused first, by its hash. */
  readonly #refused = new LRUCache<string, number>({ max: MAX_REFUSED });

  /**
   * Takes from the allowances, and returns them. Give back if the key turns out to be valid, or was not looked up.
   *
   * @throws RATE_LIMITED if the address, or all addresses together, sent too many unknown keys.
   */
  admit(address: string, hash: string, now: number): readonly Allowance[] {
    const refusedAt = this.#refused.get(hash);
    const isBack = refusedAt !== undefined && now >= refusedAt + RETURN_AFTER_MS;
    const allowances = isBack
      ? [this.#of(`again ${address}`), this.#allRepeats]
      : [this.#of(address), this.#all];
    const waitMs = Math.max(...allowances.map((allowance) => allowance.toWaitMs(now)));
    if (waitMs === 0) {
      for (const allowance of allowances) allowance.take();
      return allowances;
    }
    if (refusedAt === undefined) this.#refused.set(hash, now);
    throw new DomainError(
      "RATE_LIMITED",
      "too many unknown keys came from this address, so this key is not looked up now: try again later",
      { retryAfterMs: Math.max(waitMs, MIN_RETRY_AFTER_MS) },
    );
  }

  #of(name: string): Allowance {
    const known = this.#addresses.get(name);
    if (known !== undefined) return known;
    const allowance = new Allowance(RATE);
    this.#addresses.set(name, allowance);
    return allowance;
  }
}

/** Refills steadily up to its burst. */
class Allowance {
  readonly #rate: Rate;
  #left: number;
  #at = 0;

  constructor(rate: Rate) {
    this.#rate = rate;
    this.#left = rate.burst;
  }

  /** 0: something is left. */
  toWaitMs(now: number): number {
    this.#refill(now);
    return this.#left >= 1 ? 0 : Math.ceil(((1 - this.#left) / this.#rate.perSecond) * 1_000);
  }

  /** Only if there is nothing to wait for. */
  take(): void {
    this.#left -= 1;
  }

  giveBack(): void {
    this.#left = Math.min(this.#rate.burst, this.#left + 1);
  }

  #refill(now: number): void {
    // A clock that was set back adds nothing.
    const elapsedMs = Math.max(0, now - this.#at);
    this.#left = Math.min(this.#rate.burst, this.#left + (elapsedMs / 1_000) * this.#rate.perSecond);
    this.#at = now;
  }
}
