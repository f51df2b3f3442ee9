import type { Db } from "./client.ts";
import { orchNow } from "./engines.ts";
import { instance } from "./schema.ts";

export type InstanceRow = typeof instance.$inferSelect;

/** The installation's one row, made with the given id by whoever comes first. */
export async function ensureInstance(db: Db, id: string): Promise<InstanceRow> {
  await db.insert(instance).values({ id, createdAt: orchNow }).onConflictDoNothing();
  const [row] = await db.select().from(instance);
  if (row === undefined) throw new Error("the instance row is missing right after it was written");
  return row;
}

/** Remembers which runtime this database's engines live on. */
export async function recordRuntime(
  db: Db,
  runtime: Required<Pick<InstanceRow, "runtimeKind" | "runtimeHost">>,
): Promise<void> {
  await db.update(instance).set({ ...runtime, markedAt: orchNow });
}
