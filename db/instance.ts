import type { Db } from "./client.ts";
import { orchNow } from "./orch-now.ts";
import { engines, instance, tombstones } from "./schema.ts";

export type InstanceRow = typeof instance.$inferSelect;

/** Returns the installation's only row. Inserts it with the given id if it is missing. */
export async function ensureInstance(db: Db, id: string): Promise<InstanceRow> {
  await db.insert(instance).values({ id, createdAt: orchNow }).onConflictDoNothing();
  const [row] = await db.select().from(instance);
  if (row === undefined) throw new Error("the instance row is missing right after its insert");
  return row;
}

/** The rows that bind this database to its runtime: engines, or tombstones of destroyed engines. */
export async function findRowsOnRuntime(db: Db): Promise<"engines" | "tombstones" | undefined> {
  const [engine] = await db.select({ id: engines.id }).from(engines).limit(1);
  if (engine !== undefined) return "engines";
  const [tombstone] = await db.select({ id: tombstones.engineId }).from(tombstones).limit(1);
  return tombstone && "tombstones";
}

/** Records the runtime of this database's engines. */
export async function recordRuntime(
  db: Db,
  runtime: Required<Pick<InstanceRow, "runtimeKind" | "runtimeHost">>,
): Promise<void> {
  await db.update(instance).set({ ...runtime, markedAt: orchNow });
}
