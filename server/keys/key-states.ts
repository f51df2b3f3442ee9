import type { Db } from "../../db/client.ts";
import { findPlatformKeyState, type PlatformKeyState } from "../../db/platform-keys.ts";
import type { AppContext } from "../context.ts";

/** How long an answer of the database about a key may be used; a revocation counts after it at the latest. */
const REMEMBER_MS = 500;
/** Bounds the memory that made-up keys with a right checksum can take. */
const MAX_REMEMBERED = 10_000;

interface Remembered {
  state: Promise<PlatformKeyState | undefined>;
  until: number;
}

/** Keys by hash in order of asking, which is the order in which they are forgotten too. One map per database. */
const rememberedByDb = new WeakMap<Db, Map<string, Remembered>>();

/** What the database said of that key within the last half second; many callers at once ask it once. */
export async function findKeyState(
  ctx: Pick<AppContext, "db" | "clock">,
  hash: string,
): Promise<PlatformKeyState | undefined> {
  let remembered = rememberedByDb.get(ctx.db);
  if (remembered === undefined) {
    remembered = new Map();
    rememberedByDb.set(ctx.db, remembered);
  }
  const now = ctx.clock.now();
  const known = remembered.get(hash);
  // A clock that was set back must not make answers last longer.
  if (known !== undefined && known.until > now && known.until <= now + REMEMBER_MS) return known.state;
  const asked = { state: findPlatformKeyState(ctx.db, hash), until: now + REMEMBER_MS };
  remembered.delete(hash);
  remembered.set(hash, asked);
  forgetOldest(remembered, now);
  try {
    return await asked.state;
  } catch (error) {
    if (remembered.get(hash) === asked) remembered.delete(hash);
    throw error;
  }
}

/** Makes the next look-up of every key ask the database. */
export function forgetKeyStates(db: Db): void {
  rememberedByDb.get(db)?.clear();
}

function forgetOldest(remembered: Map<string, Remembered>, now: number): void {
  for (const [hash, { until }] of remembered) {
    if (until > now && remembered.size <= MAX_REMEMBERED) return;
    remembered.delete(hash);
  }
}
