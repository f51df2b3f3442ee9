import type { AppContext } from "../compose.ts";
import type { BaseContext } from "../context.ts";
import type { Heartbeat } from "../replicas/heartbeat.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { takeOverTurns } from "../turns/take-over/take-over-turns.ts";

/**
 * Start it right after the registration: others declare a replica dead that sends no heartbeat for one lease.
 * `onDeclaredDead`: another replica has declared this one dead, so this process must exit.
 */
export function startHeartbeatLoop(ctx: BaseContext, heartbeat: Heartbeat, onDeclaredDead: () => void): Loop {
  const tick = async () => {
    await heartbeat.send();
    if (heartbeat.replica.isDeclaredDead) onDeclaredDead();
  };
  return startLoop({ ...ctx, name: "heartbeat", intervalMs: ctx.config.heartbeatMs, tick });
}

/** Takes over the turns of replicas that die while this one serves. A heartbeat must not wait for that. */
export function startDeadReplicasLoop(ctx: AppContext, heartbeat: Heartbeat): Loop {
  const takeOverFrom = async (deadReplicaIds: string[]) => takeOverTurns(ctx, deadReplicaIds);
  const tick = async () => heartbeat.recover(takeOverFrom);
  return startLoop({ ...ctx, name: "dead replicas", intervalMs: ctx.config.heartbeatMs, tick });
}
