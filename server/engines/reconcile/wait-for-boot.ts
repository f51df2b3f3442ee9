import { observeHealth } from "./observe-engine.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

/** How many boots this process waits for; shared by all engines. */
export interface BootsInProgress {
  count: number;
}

export interface WaitForBootInput {
  endpoint: string | null;
  /** Milliseconds before the first probe. */
  probeMs: number;
  /** Ends the wait early. */
  wake: AbortSignal;
  boots: BootsInProgress;
}

/** The minimum distance between probes of all boots together. So a hundred boots do not starve each other. */
const PROBE_GAP_MS = 5;
/** The runtime is observed again after this time, because the process may have exited. */
const OBSERVE_MS = 1_000;

/** Probes a booting engine until it is ready, the signal aborts, or the runtime should be observed again. */
export async function waitForBoot(ctx: ReconcileContext, input: WaitForBootInput): Promise<void> {
  const { boots, endpoint, probeMs, wake } = input;
  const untilMs = ctx.clock.now() + OBSERVE_MS;
  let waitMs = probeMs;
  boots.count += 1;
  try {
    while (ctx.clock.now() < untilMs && !wake.aborted) {
      await ctx.clock.sleep(Math.max(waitMs, boots.count * PROBE_GAP_MS), wake).catch(() => {
        // Woken early: the caller reads the row again at once.
      });
      if (!wake.aborted && (await observeHealth(ctx, endpoint, wake)).ready) return;
      waitMs = Math.min(waitMs * 1.05, probeMs * 1.5);
    }
  } finally {
    boots.count -= 1;
  }
}
