import { LRUCache } from "lru-cache";
import type { Db } from "../../db/client.ts";
import { findPlatformKeyState, type PlatformKeyState } from "../../db/platform-keys.ts";
import type { Clock } from "../time/clock.ts";

/** How long a key's state from the database is used. A revocation has effect after this time at the latest. */
const REMEMBER_MS = 500;
/** Bounds the memory that made-up keys with a valid checksum can take. */
const MAX_REMEMBERED = 10_000;

interface Remembered {
  state: Promise<PlatformKeyState | undefined>;
  until: number;
}

/** What the database said of platform keys in the last half second. Many callers at once cost one query. */
export class KeyStates {
  readonly #db: Db;
  readonly #clock: Clock;
  readonly #remembered = new LRUCache<string, Remembered>({ max: MAX_REMEMBERED });

  constructor(db: Db, clock: Clock) {
    this.#db = db;
    this.#clock = clock;
  }

  /** `hash` is the SHA-256 of the key, in hex. */
  async find(hash: string): Promise<PlatformKeyState | undefined> {
    const now = this.#clock.now();
    const known = this.#remembered.get(hash);
    // If the clock was set back, a state must not be used for longer.
    if (known !== undefined && known.until > now && known.until <= now + REMEMBER_MS) return known.state;
    const asked = { state: findPlatformKeyState(this.#db, hash), until: now + REMEMBER_MS };
    this.#remembered.set(hash, asked);
    try {
      return await asked.state;
    } catch (error) {
      if (this.#remembered.peek(hash) === asked) this.#remembered.delete(hash);
      throw error;
    }
  }

  /** The next look-up of every key asks the database. */
  clear(): void {
    this.#remembered.clear();
  }
}
