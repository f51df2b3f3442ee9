import { recordActivity } from "../../db/engines.ts";
import type { AppContext } from "../compose.ts";
import { resyncDueEngines } from "../engines/reconcile/resync-due-engines.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { startRuntimeEventsLoop } from "./runtime-events-loop.ts";
import { startUpkeepLoop } from "./upkeep-loop.ts";

const DUE_INTERVAL_MS = 500;
const ACTIVITY_INTERVAL_MS = 5_000;

/** Every timer of the process but the heartbeat; the caller closes them, last first. */
export function startLoops(ctx: AppContext): Loop[] {
  const { clock, log } = ctx;
  const checkDue = async () => resyncDueEngines(ctx);
  const flushActivity = async () => recordActivity(ctx.db, ctx.holds.takeActivity());
  return [
    startUpkeepLoop(ctx),
    startRuntimeEventsLoop(ctx),
    startLoop({ name: "due engines", intervalMs: DUE_INTERVAL_MS, clock, log, tick: checkDue }),
    startLoop({ name: "activity", intervalMs: ACTIVITY_INTERVAL_MS, clock, log, tick: flushActivity }),
  ];
}
