import { reservePort, type EngineRowAt } from "../../../db/engines.ts";
import { findViolatedConstraint } from "../../../db/postgres-error.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { failEngine } from "./fail-engine.ts";

/** Reserves another host port for an engine that gave its own back. A lost race is simply planned again. */
export async function assignPort(ctx: ReconcileContext, row: EngineRowAt): Promise<void> {
  const { portMin: min, portMax: max } = ctx.config;
  const idempotency = { id: row.id, runtimeHost: row.runtimeHost, min, max, except: ctx.takenPorts.list() };
  try {
    if ((await reservePort(ctx.db, idempotency)) !== undefined) return;
  } catch (error) {
    if (findViolatedConstraint(error) !== "engines_host_port_key") throw error;
    return;
  }
  await failEngine(ctx, row, {
    code: "ports_exhausted",
    why: `no free host port from ${min} to ${max}`,
    retry: true,
  });
}
