import type { AppContext } from "../compose.ts";
import { startLoop, type Loop } from "../time/loop.ts";

/** How long to wait before following again when the link to the runtime was lost. */
const RETRY_MS = 2_000;

/** Follows the runtime's events. Each is only a hint to look at that engine sooner than its next check. */
export function startRuntimeEventsLoop(ctx: AppContext): Loop {
  const tick = async (signal: AbortSignal) => {
    for await (const event of ctx.runtime.events(signal)) {
      ctx.log.debug({ engineId: event.engineId, event: event.kind }, "runtime event");
      ctx.reconciler.hint(event.engineId);
    }
  };
  return startLoop({ name: "runtime events", intervalMs: RETRY_MS, clock: ctx.clock, log: ctx.log, tick });
}
