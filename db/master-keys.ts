import { ne } from "drizzle-orm";
import type { Db } from "./client.ts";
import { orchNow } from "./orch-now.ts";
import { masterKeys } from "./key-tables.ts";

export type MasterKeyRow = Pick<typeof masterKeys.$inferSelect, "keyId" | "checkValue">;

/** The master keys that values of this database were made with. */
export async function listMasterKeyRows(db: Db): Promise<MasterKeyRow[]> {
  return db.select({ keyId: masterKeys.keyId, checkValue: masterKeys.checkValue }).from(masterKeys);
}

/** Does nothing if the key has a row. */
export async function insertMasterKeyRow(db: Db, row: MasterKeyRow): Promise<void> {
  await db
    .insert(masterKeys)
    .values({ ...row, createdAt: orchNow })
    .onConflictDoNothing();
}

/** Nothing is made with the other keys any more. */
export async function deleteOtherMasterKeyRows(db: Db, keyId: string): Promise<void> {
  await db.delete(masterKeys).where(ne(masterKeys.keyId, keyId));
}
