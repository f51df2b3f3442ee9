import { takeDueEngines } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import type { Reconciler } from "./reconciler.ts";
import type { Replica } from "../../replicas/replica.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";

/** More than this under way at once would only queue at the runtime. */
const MAX_LOOKS = 32;

type CheckContext = Pick<BaseContext, "db" | "config"> & {
  runtime: EngineRuntime;
  reconciler: Reconciler;
  replica: Replica;
};

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
