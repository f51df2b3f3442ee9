import type { BaseContext } from "../context.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { removeDeadReplicas } from "../replicas/remove-dead-replicas.ts";
import type { OwnReplica } from "../replicas/replica.ts";
import { recoverTurns } from "../turns/log/recover-turns.ts";

type HeartbeatContext = Pick<BaseContext, "db" | "raw" | "config" | "clock" | "log"> & {
  replica: OwnReplica;
};

export interface HeartbeatInput {
  /** Called when others have declared this process dead: it must go. */
  onDeclaredDead(): void;
}

/**
 * Beats, and looks for replicas that do not. Its own beats must be unbroken for a lease before it judges others. To be
 * started with the registration: who is silent for a lease is dead to the others, whatever keeps it from serving.
 */
export function startHeartbeatLoop(ctx: HeartbeatContext, input: HeartbeatInput): Loop {
  let unbrokenSince = performance.now();
  // Their rows are gone, their turns may still be live: kept until the turns were recovered.
  const unrecovered = new Set<string>();
  const tick = async () => {
    const heldBefore = ctx.replica.holdsLease();
    try {
      await ctx.replica.sendHeartbeat();
    } catch (error) {
      unbrokenSince = performance.now();
      throw error;
    }
    if (ctx.replica.isDeclaredDead) return input.onDeclaredDead();
    if (!heldBefore) unbrokenSince = performance.now();
    const unbroken = performance.now() - unbrokenSince >= ctx.config.leaseMs;
    const { dead } = await removeDeadReplicas(ctx, { ownId: ctx.replica.id, unbroken });
    for (const id of dead) unrecovered.add(id);
    if (unrecovered.size === 0) return;
    await recoverTurns(ctx, [...unrecovered]);
    unrecovered.clear();
  };
  return startLoop({
    name: "heartbeat",
    intervalMs: ctx.config.heartbeatMs,
    clock: ctx.clock,
    log: ctx.log,
    tick,
  });
}
