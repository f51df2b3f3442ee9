import { takeDueEngines } from "../../../db/engines.ts";
import type { AppContext } from "../../context.ts";

/** More than this under way at once would only queue at the runtime. */
const MAX_LOOKS = 32;

type CheckContext = Pick<AppContext, "db" | "runtime" | "config" | "reconciler" | "replica">;

/**
 * The periodic pass: looks at what is due, and does not wait for it. A boot or a pull that a look turns into counts
 * against it until it ends; verbs do not.
 */
export async function resyncDueEngines(ctx: CheckContext): Promise<void> {
  const room = MAX_LOOKS - ctx.reconciler.looks;
  if (room <= 0 || !ctx.replica.holdsLease()) return;
  const ids = await takeDueEngines(ctx.db, {
    runtimeHost: ctx.runtime.host,
    limit: room,
    holdMs: ctx.config.healthIntervalMs,
  });
  for (const id of ids) ctx.reconciler.look(id);
}
