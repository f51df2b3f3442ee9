import type { Db } from "../../../db/client.ts";
import { reservePort, type EngineRow } from "../../../db/engines.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

/**
 * Reserves a host port. undefined: engines have every port of the range, or other programs held the rest a moment ago.
 * Ports that other programs held some time ago are the last choice: the start of the engine tells if they are free now.
 */
export async function reserveHostPort(
  ctx: Pick<ReconcileContext, "config" | "takenPorts">,
  db: Db,
  row: Pick<EngineRow, "id" | "runtimeHost">,
): Promise<number | undefined> {
  const { portMin: min, portMax: max } = ctx.config;
  const reservation = { id: row.id, runtimeHost: row.runtimeHost, min, max };
  const avoided = ctx.takenPorts.list();
  const port = await reservePort(db, { ...reservation, except: avoided });
  if (port !== undefined || avoided.length === 0) return port;
  return reservePort(db, { ...reservation, except: ctx.takenPorts.listRecent() });
}
