import { LRUCache } from "lru-cache";
import { findPlatformKeyState, recordKeyUsed, type PlatformKeyState } from "../../db/platform-keys.ts";
import type { BaseContext } from "../context.ts";
import { toErrorMessage } from "../errors.ts";

/** How long a key's state from the database is used. A revocation has effect after this time at the latest. */
const REMEMBER_MS = 500;
/** Bounds the memory that made-up keys with a valid checksum can take. */
const MAX_REMEMBERED = 10_000;

interface Remembered {
  state: Promise<PlatformKeyState | undefined>;
  until: number;
}

/** Caches the states of platform keys from the database for half a second. Concurrent callers share one query. */
export class KeyStates {
  readonly #ctx: Pick<BaseContext, "db" | "clock" | "log">;
  readonly #remembered = new LRUCache<string, Remembered>({ max: MAX_REMEMBERED });
  /** States whose use has been written. Callers share a state while it is cached, and one write is enough. */
  readonly #noted = new WeakSet<PlatformKeyState>();

  constructor(ctx: Pick<BaseContext, "db" | "clock" | "log">) {
    this.#ctx = ctx;
  }

  /** `hash` is the SHA-256 of the key, in hex. */
  async find(hash: string): Promise<PlatformKeyState | undefined> {
    const now = this.#ctx.clock.now();
    const known = this.#remembered.get(hash);
    // If the clock was set back, a state must not be used for longer.
    if (known !== undefined && known.until > now && known.until <= now + REMEMBER_MS) return known.state;
    const asked = { state: findPlatformKeyState(this.#ctx.db, hash), until: now + REMEMBER_MS };
    this.#remembered.set(hash, asked);
    try {
      return await asked.state;
    } catch (error) {
      if (this.#remembered.peek(hash) === asked) this.#remembered.delete(hash);
      throw error;
    }
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
    this.#remembered.clear();
  }
}
