import type { EngineRowAt } from "../../../db/engines.ts";
import { failEngine } from "./fail-engine.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { reserveHostPort } from "./reserve-host-port.ts";

/**
 * Reserves a host port for an engine that has none. The step `free_address`, a port that another program holds, and the
 * deletion of the row free it.
 */
export async function assignPort(ctx: ReconcileContext, row: EngineRowAt): Promise<void> {
  if ((await reserveHostPort(ctx, ctx.db, row)) !== undefined) return;
  const why = `no host port from ${ctx.config.portMin} to ${ctx.config.portMax} is free`;
  await failEngine(ctx, row, { code: "ports_exhausted", why, retry: true });
}
