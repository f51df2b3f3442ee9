import type { AppContext } from "./context.ts";
import { removeDeadReplicas } from "./replica.ts";

const POLL_MS = 250;

/**
 * Waits until no other replica serves this database: the gate that keeps calls off a stopping engine lives in one
 * process. One that is draining is waited for; one that stays is named in the error.
 */
export async function waitForOtherReplicas(
  ctx: Pick<AppContext, "db" | "config" | "log" | "clock">,
  signal: AbortSignal,
): Promise<void> {
  const { drainDelayMs, drainMs, leaseMs } = ctx.config;
  const startedAt = performance.now();
  const patienceMs = drainDelayMs + drainMs + leaseMs;
  for (;;) {
    // The row of a crashed replica ages by the database's clock; a lease of our own waiting makes it certain.
    const unbroken = performance.now() - startedAt > leaseMs;
    const { alive } = await removeDeadReplicas(ctx, { ownId: "", unbroken });
    const [other] = alive;
    if (other === undefined) return;
    if (performance.now() - startedAt > patienceMs) {
      throw new Error(
        `replica ${other.id} serves this database already (last heartbeat ${other.heartbeatAt})`,
      );
    }
    ctx.log.info({ other: other.id, heartbeatAt: other.heartbeatAt }, "waiting for another replica to go");
    await ctx.clock.sleep(POLL_MS, signal);
  }
}
