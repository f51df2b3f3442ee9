import { recordActivity } from "../../db/engines.ts";
import type { AppContext } from "../compose.ts";
import { resyncDueEngines } from "../engines/reconcile/resync-due-engines.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { startMaintenanceLoop } from "./maintenance-loop.ts";
import { startRuntimeEventsLoop } from "./runtime-events-loop.ts";

const RESYNC_INTERVAL_MS = 500;
const ACTIVITY_INTERVAL_MS = 5_000;

/** Starts every loop except the heartbeat. The caller closes them in reverse order. */
export function startLoops(ctx: AppContext): Loop[] {
  const resync = async () => resyncDueEngines(ctx);
  const writeActivity = async () => recordActivity(ctx.db, ctx.holds.takeActivity());
  return [
    startMaintenanceLoop(ctx),
    startRuntimeEventsLoop(ctx),
    startLoop({ ...ctx, name: "resync", intervalMs: RESYNC_INTERVAL_MS, tick: resync }),
    startLoop({ ...ctx, name: "activity", intervalMs: ACTIVITY_INTERVAL_MS, tick: writeActivity }),
  ];
}
