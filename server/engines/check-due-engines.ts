import { claimDueEngines } from "../../db/engines.ts";
import type { AppContext } from "../context.ts";

/** More than this under way at once would only queue at the runtime. */
const MAX_ACTIVE = 32;

type CheckContext = Pick<AppContext, "db" | "runtime" | "config" | "converger" | "replica">;

/**
 * The periodic pass: drives what is due, and does not wait for it. Returns how many were taken, so that the
 * caller can come again at once while there are more.
 */
export async function checkDueEngines(ctx: CheckContext): Promise<number> {
  const room = MAX_ACTIVE - ctx.converger.active;
  if (room <= 0 || !ctx.replica.holdsLease()) return 0;
  const ids = await claimDueEngines(ctx.db, {
    runtimeHost: ctx.runtime.host,
    limit: room,
    holdMs: ctx.config.healthIntervalMs,
  });
  for (const id of ids) ctx.converger.hint(id, { quick: true });
  return ids.length;
}
