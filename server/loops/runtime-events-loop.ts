import type { AppContext } from "../compose.ts";
import { startLoop, type Loop } from "../time/loop.ts";

/** The wait before the event stream is opened again after the link to the runtime was lost. */
const RETRY_MS = 2_000;

/** Passes runtime events to the reconciler. They only save waiting for the next resync. */
export function startRuntimeEventsLoop(ctx: AppContext): Loop {
  const tick = async (signal: AbortSignal) => {
    for await (const event of ctx.runtime.events(signal)) {
      ctx.log.debug({ engineId: event.engineId, event: event.kind }, "runtime event");
      ctx.reconciler.onRuntimeEvent(event.engineId);
    }
  };
  return startLoop({ ...ctx, name: "runtime events", intervalMs: RETRY_MS, tick });
}
