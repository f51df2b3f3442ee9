import type { BaseContext } from "../context.ts";
import { Heartbeat } from "../replicas/heartbeat.ts";
import type { OwnReplica } from "../replicas/replica.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { recoverTurns } from "../turns/log/recover-turns.ts";

type HeartbeatContext = BaseContext & { replica: OwnReplica };

export interface HeartbeatLoopInput {
  /** Called when another replica has declared this one dead: this process must exit. */
  onDeclaredDead(): void;
}

/** Start it right after the registration: others declare a replica dead that sends no heartbeat for one lease. */
export function startHeartbeatLoop(ctx: HeartbeatContext, input: HeartbeatLoopInput): Loop {
  const heartbeat = new Heartbeat(ctx, {
    replica: ctx.replica,
    recover: (deadReplicaIds) => recoverTurns(ctx, deadReplicaIds),
  });
  const tick = async () => {
    await heartbeat.send();
    if (ctx.replica.isDeclaredDead) input.onDeclaredDead();
  };
  return startLoop({ ...ctx, name: "heartbeat", intervalMs: ctx.config.heartbeatMs, tick });
}
