import type { Db } from "./client.ts";
import { orchNow } from "./engines.ts";
import { engines, instance, tombstones } from "./schema.ts";

export type InstanceRow = typeof instance.$inferSelect;

/** The installation's one row, made with the given id by whoever comes first. */
export async function ensureInstance(db: Db, id: string): Promise<InstanceRow> {
  await db.insert(instance).values({ id, createdAt: orchNow }).onConflictDoNothing();
  const [row] = await db.select().from(instance);
  if (row === undefined) throw new Error("the instance row is missing right after it was written");
  return row;
}

/** What ties this database to its runtime: engines, or what may be left of those that were destroyed. */
export async function findPlaced(db: Db): Promise<"engines" | "tombstones" | undefined> {
  const [engine] = await db.select({ id: engines.id }).from(engines).limit(1);
  if (engine !== undefined) return "engines";
  const [tombstone] = await db.select({ id: tombstones.engineId }).from(tombstones).limit(1);
  return tombstone && "tombstones";
}

/** Remembers which runtime this database's engines live on. */
export async function recordRuntime(
  db: Db,
  runtime: Required<Pick<InstanceRow, "runtimeKind" | "runtimeHost">>,
): Promise<void> {
  await db.update(instance).set({ ...runtime, markedAt: orchNow });
}
