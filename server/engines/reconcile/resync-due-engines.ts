import { takeDueEngines } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import type { Replica } from "../../replicas/replica.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { Reconciler } from "./reconciler.ts";

/** More resyncs at once would only queue at the runtime. Operations do not count. */
const MAX_RESYNCS = 32;

type ResyncContext = Pick<BaseContext, "db" | "config"> & {
  runtime: EngineRuntime;
  reconciler: Reconciler;
  replica: Replica;
};

/** Starts a resync of engines that are due, and does not wait for them. */
export async function resyncDueEngines(ctx: ResyncContext): Promise<void> {
  const limit = MAX_RESYNCS - ctx.reconciler.resyncs;
  if (limit <= 0 || !ctx.replica.holdsLease()) return;
  const holdMs = ctx.config.healthIntervalMs;
  const ids = await takeDueEngines(ctx.db, { runtimeHost: ctx.runtime.host, limit, holdMs });
  for (const id of ids) ctx.reconciler.resync(id);
}
