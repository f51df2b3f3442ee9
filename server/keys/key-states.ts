import { LRUCache } from "lru-cache";
import { findPlatformKeyState, recordKeyUsed, type PlatformKeyState } from "../../db/platform-keys.ts";
import type { BaseContext } from "../context.ts";
import { toErrorMessage } from "../errors.ts";
import { chargeGuess, KeyGuesses } from "./key-guesses.ts";

/** How long a key's state from the database is used. A revocation has effect after this time at the latest. */
const REMEMBER_MS = 500;
const MAX_REMEMBERED = 10_000;
/** How long an unknown key is refused without a query. A key is random, so nobody sends it before it is issued. */
const REMEMBER_UNKNOWN_MS = 5_000;
/** Bounds the memory that made-up keys with a valid checksum can take. */
const MAX_UNKNOWN = 10_000;

interface Remembered {
  state: Promise<PlatformKeyState | undefined>;
  until: number;
  /** The database has this key. Its next look-ups are no guesses. */
  isFound: boolean;
}

/**
 * Caches the states of platform keys from the database for half a second. Concurrent callers share one query. Unknown
 * keys are remembered longer and apart, so that a flood of them displaces no known key and does not reach the database.
 */
export class KeyStates {
  readonly #ctx: Pick<BaseContext, "db" | "clock" | "log">;
  readonly #remembered = new LRUCache<string, Remembered>({ max: MAX_REMEMBERED });
  /** The hashes of unknown keys, and until when they count as unknown. */
  readonly #unknown = new LRUCache<string, number>({ max: MAX_UNKNOWN });
  readonly #guesses = new KeyGuesses();
  /** States whose use has been written. Callers share a state while it is cached, and one write is enough. */
  readonly #noted = new WeakSet<PlatformKeyState>();

  constructor(ctx: Pick<BaseContext, "db" | "clock" | "log">) {
    this.#ctx = ctx;
  }

  /**
   * undefined: the key is unknown. `hash` is the SHA-256 of the key, in hex. `address` is the caller's; without one,
   * the call is not counted.
   *
   * @throws RATE_LIMITED for a key that was never found, if its address sent too many unknown keys.
   */
  async find(hash: string, address?: string): Promise<PlatformKeyState | undefined> {
    const now = this.#ctx.clock.now();
    const known = this.#remembered.get(hash);
    // If the clock was set back, a state must not be used for longer.
    if (known !== undefined && known.until > now && known.until <= now + REMEMBER_MS) return known.state;
    if (this.#isUnknown(hash, now)) return undefined;
    const isFound = known?.isFound === true;
    const isGuess = !isFound && address !== undefined;
    const charge = isGuess ? this.#guesses.admit(address, hash, now) : undefined;
    const asked = { state: findPlatformKeyState(this.#ctx.db, hash), until: now + REMEMBER_MS, isFound };
    this.#remembered.set(hash, asked);
    try {
      const state = await asked.state;
      asked.isFound = state !== undefined;
      if (asked.isFound) return state;
      if (charge !== undefined) chargeGuess(charge, now);
      this.#unknown.set(hash, now + REMEMBER_UNKNOWN_MS);
      this.#forget(hash, asked);
      return undefined;
    } catch (error) {
      if (isFound) asked.until = 0;
      else this.#forget(hash, asked);
      throw error;
    }
  }

  #isUnknown(hash: string, now: number): boolean {
    const until = this.#unknown.get(hash);
    return until !== undefined && until > now && until <= now + REMEMBER_UNKNOWN_MS;
  }

  #forget(hash: string, asked: Remembered): void {
    if (this.#remembered.peek(hash) === asked) this.#remembered.delete(hash);
  }

  /** Writes the time of the key's last use in the background. A failure is logged and does not fail the call. */
  noteUse(state: PlatformKeyState): void {
    if (!state.usageStale || this.#noted.has(state)) return;
    this.#noted.add(state);
    recordKeyUsed(this.#ctx.db, state.id).catch((error: unknown) => {
      const fields = { keyId: state.id, error: toErrorMessage(error) };
      this.#ctx.log.debug(fields, "the last use of a key was not recorded");
    });
  }

  /** Makes the next look-up of every key query the database. */
  clear(): void {
    for (const known of this.#remembered.values()) known.until = 0;
    this.#unknown.clear();
  }
}
