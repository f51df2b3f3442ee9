import { recordActivity } from "../../db/engines.ts";
import type { AppContext } from "../compose.ts";
import { noteMemoryKill } from "../engines/reconcile/note-memory-kill.ts";
import { resyncDueEngines } from "../engines/reconcile/resync-due-engines.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { startMaintenanceLoops } from "./maintenance-loops.ts";

const RESYNC_INTERVAL_MS = 500;
/** How often the counts of refused calls become rows of the audit log. */
const DENIALS_INTERVAL_MS = 60_000;
const ACTIVITY_INTERVAL_MS = 5_000;
/** The wait before the event stream is opened again after the link to the runtime was lost. */
const EVENTS_RETRY_MS = 2_000;

/** Starts every loop except the heartbeat. The caller closes them in reverse order. */
export function startLoops(ctx: AppContext): Loop[] {
  const resync = async () => resyncDueEngines(ctx);
  const writeActivity = async () => recordActivity(ctx.db, ctx.holds.takeActivity());
  const writeDenials = async (signal: AbortSignal) => ctx.denials.write(signal);
  // Runtime events only save waiting for the next resync.
  const passEvents = async (signal: AbortSignal) => {
    for await (const { engineId, kind } of ctx.runtime.events(signal)) {
      ctx.log.debug({ engineId, event: kind }, "runtime event");
      if (kind === "oom") await noteMemoryKill(ctx, engineId);
      ctx.reconciler.onRuntimeEvent(engineId);
    }
  };
  return [
    ...startMaintenanceLoops(ctx),
    startLoop({ ...ctx, name: "runtime events", intervalMs: EVENTS_RETRY_MS, tick: passEvents }),
    startLoop({ ...ctx, name: "resync", intervalMs: RESYNC_INTERVAL_MS, tick: resync }),
    startLoop({ ...ctx, name: "denials", intervalMs: DENIALS_INTERVAL_MS, tick: writeDenials }),
    startLoop({ ...ctx, name: "activity", intervalMs: ACTIVITY_INTERVAL_MS, tick: writeActivity }),
  ];
}
