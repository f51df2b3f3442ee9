import type { Db } from "../../db/client.ts";
import { deleteReplicas, listReplicas, type ReplicaRowAge } from "../../db/replicas.ts";
import type { BaseContext } from "../context.ts";
import { isProcessGone } from "./replica-process.ts";

/**
 * Deletes the rows of dead replicas, and returns the replicas that are alive. A replica is dead when its process is
 * visibly gone, or when it sent no heartbeat for one lease.
 *
 * The second rule applies only if our own heartbeats were `unbroken` for as long. A database outage stops every
 * replica's heartbeats, and must not make any of them count as dead.
 */
export async function removeDeadReplicas(
  ctx: Pick<BaseContext, "config"> & { db: Db },
  judge: { ownId: string; unbroken: boolean },
): Promise<{ dead: string[]; alive: ReplicaRowAge[] }> {
  const others = (await listReplicas(ctx.db)).filter((replica) => replica.id !== judge.ownId);
  const dead: string[] = [];
  const alive: ReplicaRowAge[] = [];
  for (const replica of others) {
    const hasExpired = judge.unbroken && replica.silentMs > ctx.config.leaseMs;
    if (hasExpired || (await isProcessGone(replica.processIdentity))) dead.push(replica.id);
    else alive.push(replica);
  }
  await deleteReplicas(ctx.db, dead);
  return { dead, alive };
}
