import type { ContainerObservation } from "../../runtime/engine-runtime.ts";
import { observeHealth, type BootAnswer } from "./observe-engine.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

/** How many boots this process waits for; shared by all engines. */
export interface BootsInProgress {
  count: number;
}

export interface WaitForBootInput {
  container: ContainerObservation;
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

/** Probes a booting engine until it is ready. undefined: the signal aborted, or the runtime has to be observed again. */
export async function waitForBoot(
  ctx: ReconcileContext,
  input: WaitForBootInput,
): Promise<BootAnswer | undefined> {
  const { boots, probeMs, wake } = input;
  const { endpoint, processIdentity } = input.container;
  const untilMs = ctx.clock.now() + OBSERVE_MS;
  let waitMs = probeMs;
  boots.count += 1;
  try {
    while (ctx.clock.now() < untilMs && !wake.aborted) {
      await ctx.clock.sleep(Math.max(waitMs, boots.count * PROBE_GAP_MS), wake).catch(() => {
        // Woken early: the caller reads the row again at once.
      });
      if (wake.aborted) return undefined;
      const health = await observeHealth(ctx, endpoint, wake);
      if (health.ready) return { processIdentity, health };
      waitMs = Math.min(waitMs * 1.05, probeMs * 1.5);
    }
    return undefined;
  } finally {
    boots.count -= 1;
  }
}
