import type { Db } from "../../db/client.ts";
import { lockReplicas, type ReplicaRowAge } from "../../db/replicas.ts";
import type { BaseContext } from "../context.ts";
import { removeDeadReplicas } from "./remove-dead-replicas.ts";
import { OwnReplica, registerReplica } from "./replica.ts";

const POLL_MS = 250;
/** How long a replica may take to close after its drain. */
const CLOSE_MS = 40_000;

type SoleContext = Pick<BaseContext, "db" | "config" | "log" | "clock"> & {
  /** The heartbeat's own database connection. */
  heartbeat: Db;
  runtimeHost: string;
};

/**
 * Registers this process as the only replica of its database. There can be only one, because the gate of an engine
 * lives in the memory of one process. Waits for a draining replica to leave.
 *
 * @throws naming the other replica, if that stays longer than a drain takes; the signal's reason, if it aborts.
 */
export async function registerSoleReplica(ctx: SoleContext, signal: AbortSignal): Promise<OwnReplica> {
  const { drainDelayMs, drainMs, leaseMs } = ctx.config;
  const startedAt = performance.now();
  const maxWaitMs = drainDelayMs + drainMs + leaseMs + CLOSE_MS;
  let waitsFor: string | undefined;
  for (;;) {
    // An unregistered replica sends no heartbeats. Instead it must have waited for one lease.
    const unbroken = performance.now() - startedAt > leaseMs;
    const other = await tryRegister(ctx, unbroken);
    if (other instanceof OwnReplica) return other;
    if (performance.now() - startedAt > maxWaitMs) {
      throw new Error(
        `replica ${other.id} already serves this database (last heartbeat ${other.heartbeatAt}): stop it first`,
      );
    }
    if (other.id !== waitsFor) {
      ctx.log.info(
        { other: other.id, heartbeatAt: other.heartbeatAt },
        "waiting for another replica to leave",
      );
    }
    waitsFor = other.id;
    await ctx.clock.sleep(POLL_MS, signal);
  }
}

/**
 * Returns another live replica, or else registers this process. One transaction does both under a lock: of two replicas
 * that start at once, one finds the other.
 */
async function tryRegister(ctx: SoleContext, unbroken: boolean): Promise<OwnReplica | ReplicaRowAge> {
  return ctx.db.transaction(async (tx) => {
    await lockReplicas(tx);
    const { alive } = await removeDeadReplicas({ ...ctx, db: tx }, { ownId: "", unbroken });
    return (
      alive[0] ?? registerReplica({ ...ctx, db: ctx.heartbeat }, { db: tx, runtimeHost: ctx.runtimeHost })
    );
  });
}
