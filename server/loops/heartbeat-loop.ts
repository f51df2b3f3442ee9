import type { Db } from "../../db/client.ts";
import type { BaseContext } from "../context.ts";
import { Heartbeat } from "../replicas/heartbeat.ts";
import type { OwnReplica } from "../replicas/replica.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { recoverTurns } from "../turns/log/recover-turns.ts";

/**
 * Start it right after the registration: others declare a replica dead that sends no heartbeat for one lease. A second
 * loop recovers the turns of dead replicas, because a heartbeat must not wait for that.
 *
 * `heartbeat`: the heartbeat's own database connection. `onDeclaredDead`: another replica has declared this one dead, so
 * this process must exit.
 */
export function startHeartbeatLoop(
  ctx: BaseContext & { heartbeat: Db; replica: OwnReplica },
  onDeclaredDead: () => void,
): Loop {
  const recoverTurnsOf = async (deadReplicaIds: string[]) => recoverTurns(ctx, deadReplicaIds);
  const heartbeat = new Heartbeat({ ...ctx, db: ctx.heartbeat }, { replica: ctx.replica, recoverTurnsOf });
  const intervalMs = ctx.config.heartbeatMs;
  const recovery = startLoop({
    ...ctx,
    name: "dead replicas",
    intervalMs,
    tick: async () => heartbeat.recover(),
  });
  const tick = async () => {
    if (await heartbeat.send()) recovery.wake();
    if (ctx.replica.isDeclaredDead) onDeclaredDead();
  };
  const sending = startLoop({ ...ctx, name: "heartbeat", intervalMs, tick });
  const close = async () => {
    await Promise.all([sending.close(), recovery.close()]);
  };
  return { wake: () => sending.wake(), close, [Symbol.asyncDispose]: close };
}
