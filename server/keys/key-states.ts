import { LRUCache } from "lru-cache";
import { recordKeyUsed } from "../../db/key-rows.ts";
import type { TamperReports } from "../audit/tamper-reports.ts";
import type { BaseContext } from "../context.ts";
import { toErrorMessage } from "../errors.ts";
import { KeyGuesses } from "./key-guesses.ts";
import { readKeyState, type CallerKeyKind, type KeyState } from "./key-state.ts";
import type { Keyring } from "./keyring.ts";

/** How long a key's state from the database is used. A revocation has effect after this time at the latest. */
const REMEMBER_MS = 500;
const MAX_REMEMBERED = 10_000;
/** How long an unknown key is refused without a query. A key is random, so a caller cannot send it before it is issued. */
const REMEMBER_UNKNOWN_MS = 5_000;
/** Bounds the memory that made-up keys with a valid checksum can take. */
const MAX_UNKNOWN = 10_000;

interface Asked {
  state: Promise<KeyState | undefined>;
  until: number;
}

function isFresh(asked: Asked | undefined, now: number): boolean {
  // If the clock was set back, a state must not be used for longer.
  return asked !== undefined && asked.until > now && asked.until <= now + REMEMBER_MS;
}

type KeyStatesContext = Pick<BaseContext, "db" | "clock" | "log"> & {
  keyring: Pick<Keyring, "macKey">;
  tamperReports: Pick<TamperReports, "report">;
};

/** A key as its caller sent it. */
export interface PresentedKey {
  kind: CallerKeyKind;
  /** The SHA-256 of the key, in hex. */
  hash: string;
}

/**
 * Caches the states of platform and operator keys from the database for half a second. Concurrent callers share one query. Unknown
 * keys are remembered longer and apart, so that a flood of them displaces no known key and does not reach the database.
 */
export class KeyStates {
  readonly #ctx: KeyStatesContext;
  /** Keys that the database has, so that their next look-ups are no guesses. */
  readonly #known = new LRUCache<string, Asked>({ max: MAX_REMEMBERED });
  /** Look-ups without an answer yet. The guesses among them are bounded, and they displace no known key. */
  readonly #pending = new Map<string, Asked>();
  /** The hashes of unknown keys, and until when they count as unknown. */
  readonly #unknown = new LRUCache<string, number>({ max: MAX_UNKNOWN });
  readonly #guesses = new KeyGuesses();
  /** States whose use has been written. Callers share a state while it is cached, and one write is enough. */
  readonly #noted = new WeakSet<KeyState>();

  constructor(ctx: KeyStatesContext) {
    this.#ctx = ctx;
  }

  /**
   * undefined: the key is unknown. `address` is the caller's; without one, the call is not counted.
   *
   * @throws RATE_LIMITED for a key that was never found, if its address sent too many unknown keys.
   */
  async find({ kind, hash }: PresentedKey, address?: string): Promise<KeyState | undefined> {
    const now = this.#ctx.clock.now();
    const known = this.#known.get(hash);
    const fresh = [known, this.#pending.get(hash)].find((each) => isFresh(each, now));
    if (fresh !== undefined) return fresh.state;
    if (this.#isUnknown(hash, now)) return undefined;
    const isGuess = known === undefined && address !== undefined;
    const taken = isGuess ? this.#guesses.admit(address, hash, now) : [];
    const asked = { state: readKeyState(this.#ctx, kind, hash), until: now + REMEMBER_MS };
    this.#pending.set(hash, asked);
    let isUnknown = false;
    try {
      const state = await asked.state;
      isUnknown = state === undefined;
      this.#note(hash, { asked, isUnknown, now });
      return state;
    } finally {
      if (!isUnknown) for (const allowance of taken) allowance.giveBack();
      if (this.#pending.get(hash) === asked) this.#pending.delete(hash);
    }
  }

  #note(hash: string, { asked, isUnknown, now }: { asked: Asked; isUnknown: boolean; now: number }): void {
    if (isUnknown) {
      this.#known.delete(hash);
      this.#unknown.set(hash, now + REMEMBER_UNKNOWN_MS);
      return;
    }
    const known = this.#known.peek(hash);
    // A slow query must not replace the answer of a later one.
    if (known === undefined || known.until <= asked.until) this.#known.set(hash, asked);
  }

  #isUnknown(hash: string, now: number): boolean {
    const until = this.#unknown.get(hash);
    return until !== undefined && until > now && until <= now + REMEMBER_UNKNOWN_MS;
  }

  /** Writes the time of the key's last use in the background. A failure is logged and does not fail the call. */
  noteUse(state: KeyState): void {
    if (!state.usageStale || this.#noted.has(state)) return;
    this.#noted.add(state);
    recordKeyUsed(this.#ctx.db, state.kind, state.id).catch((error: unknown) => {
      const fields = { keyId: state.id, error: toErrorMessage(error) };
      this.#ctx.log.debug(fields, "the last use of a key was not recorded");
    });
  }

  /** Makes the next look-up of every key query the database. */
  clear(): void {
    for (const known of this.#known.values()) known.until = 0;
    for (const asked of this.#pending.values()) asked.until = 0;
    this.#unknown.clear();
  }
}
