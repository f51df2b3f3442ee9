import { reservePort, type EngineRowAt } from "../../../db/engines.ts";
import { findViolatedConstraint } from "../../../db/postgres-error.ts";
import { failEngine } from "./fail-engine.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

/**
 * Reserves a host port for an engine that has none. After a lost race, the next plan tries again. The step
 * `free_address`, a port that another program holds, and the deletion of the row free it.
 */
export async function assignPort(ctx: ReconcileContext, row: EngineRowAt): Promise<void> {
  const { portMin: min, portMax: max } = ctx.config;
  const reservation = { id: row.id, runtimeHost: row.runtimeHost, min, max, except: ctx.takenPorts.list() };
  try {
    if ((await reservePort(ctx.db, reservation)) !== undefined) return;
  } catch (error) {
    if (findViolatedConstraint(error) !== "engines_host_port_key") throw error;
    return;
  }
  const why = `no host port from ${min} to ${max} is free`;
  await failEngine(ctx, row, { code: "ports_exhausted", why, retry: true });
}
