import type { BaseContext } from "../context.ts";
import { registerReplica, removeDeadReplicas, type HeldReplica } from "./replica.ts";
import { lockReplicas, type ReplicaRowAge } from "../../db/replicas.ts";

const POLL_MS = 250;
/** What a process that was told to go may take on top of its drain. */
const CLOSE_MS = 40_000;

type SoleContext = Pick<BaseContext, "db" | "config" | "log" | "clock"> & { runtimeHost: string };

/**
 * Registers this process once no other replica serves this database: the gate that keeps calls off a stopping engine lives in one
 * process. One that is draining is waited for; one that stays is named in the error.
 */
export async function registerSoleReplica(ctx: SoleContext, signal: AbortSignal): Promise<HeldReplica> {
  const { drainDelayMs, drainMs, leaseMs } = ctx.config;
  const startedAt = performance.now();
  const patienceMs = drainDelayMs + drainMs + leaseMs + CLOSE_MS;
  for (;;) {
    // The row of a crashed replica ages by the database's clock; a lease of our own waiting makes it certain.
    const unbroken = performance.now() - startedAt > leaseMs;
    const { registered, other } = await tryRegister(ctx, unbroken);
    if (registered !== undefined) return registered;
    if (performance.now() - startedAt > patienceMs) {
      throw new Error(
        `replica ${other.id} serves this database already (last heartbeat ${other.heartbeatAt})`,
      );
    }
    ctx.log.info({ other: other.id, heartbeatAt: other.heartbeatAt }, "waiting for another replica to go");
    await ctx.clock.sleep(POLL_MS, signal);
  }
}

/** The look and the registration are one step: of two processes that start together one sees the other. */
async function tryRegister(
  ctx: SoleContext,
  unbroken: boolean,
): Promise<
  { registered: HeldReplica; other?: undefined } | { registered?: undefined; other: ReplicaRowAge }
> {
  return ctx.db.transaction(async (tx) => {
    await lockReplicas(tx);
    const { alive } = await removeDeadReplicas({ ...ctx, db: tx }, { ownId: "", unbroken });
    const [other] = alive;
    if (other !== undefined) return { other };
    return { registered: await registerReplica(ctx, { db: tx, runtimeHost: ctx.runtimeHost }) };
  });
}
