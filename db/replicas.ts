import { eq, getTableColumns, inArray, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { orchNow } from "./orch-now.ts";
import { replicas } from "./schema.ts";

export type ReplicaRow = typeof replicas.$inferSelect;
/** A replica, and the time since its last heartbeat by the database's clock. */
export type ReplicaRowAge = ReplicaRow & { silentMs: number };

export async function insertReplica(
  db: Db,
  replica: Pick<ReplicaRow, "id" | "runtimeHost" | "processIdentity">,
): Promise<void> {
  await db.insert(replicas).values({ ...replica, startedAt: orchNow, heartbeatAt: orchNow });
}

/** False if the row is gone: another replica has declared this one dead. */
export async function recordHeartbeat(db: Db, id: string): Promise<boolean> {
  const rows = await db
    .update(replicas)
    .set({ heartbeatAt: orchNow })
    .where(eq(replicas.id, id))
    .returning({ id: replicas.id });
  return rows.length > 0;
}

export async function listReplicas(db: Db): Promise<ReplicaRowAge[]> {
  return db
    .select({
      ...getTableColumns(replicas),
      silentMs: sql<number>`(extract(epoch from orch_now() - ${replicas.heartbeatAt}) * 1000)::float8`,
    })
    .from(replicas);
}

export async function deleteReplicas(db: Db, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  await db.delete(replicas).where(inArray(replicas.id, [...ids]));
}

/** Until this transaction ends, no other replica can list replicas and register. */
export async function lockReplicas(tx: Db): Promise<void> {
  await tx.execute(sql`select pg_advisory_xact_lock(hashtext('enginehouse.replicas'))`);
}
