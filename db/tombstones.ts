import { asc, eq } from "drizzle-orm";
import type { Db } from "./client.ts";
import { orchNow } from "./orch-now.ts";
import { tombstones } from "./schema.ts";

export type TombstoneRow = typeof tombstones.$inferSelect;

export async function insertTombstone(
  tx: Db,
  tombstone: Omit<typeof tombstones.$inferInsert, "destroyedAt">,
): Promise<void> {
  await tx.insert(tombstones).values({ ...tombstone, destroyedAt: orchNow });
}

export async function listTombstones(db: Db, runtimeHost: string): Promise<TombstoneRow[]> {
  return db
    .select()
    .from(tombstones)
    .where(eq(tombstones.runtimeHost, runtimeHost))
    .orderBy(asc(tombstones.destroyedAt))
    .limit(100);
}

export async function deleteTombstone(db: Db, engineId: string): Promise<void> {
  await db.delete(tombstones).where(eq(tombstones.engineId, engineId));
}
