import type { BaseContext } from "../context.ts";
import { Heartbeat } from "../replicas/heartbeat.ts";
import type { OwnReplica } from "../replicas/replica.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { recoverTurns } from "../turns/log/recover-turns.ts";

/**
 * Start it right after the registration: others declare a replica dead that sends no heartbeat for one lease.
 * `onDeclaredDead`: another replica has declared this one dead, so this process must exit.
 */
export function startHeartbeatLoop(
  ctx: BaseContext & { replica: OwnReplica },
  onDeclaredDead: () => void,
): Loop {
  const recoverTurnsOf = async (deadReplicaIds: string[]) => recoverTurns(ctx, deadReplicaIds);
  const heartbeat = new Heartbeat(ctx, { replica: ctx.replica, recoverTurnsOf });
  const tick = async () => {
    await heartbeat.sendAndRecover();
    if (ctx.replica.isDeclaredDead) onDeclaredDead();
  };
  return startLoop({ ...ctx, name: "heartbeat", intervalMs: ctx.config.heartbeatMs, tick });
}
