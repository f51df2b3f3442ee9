import { pgTable, text, uuid } from "drizzle-orm/pg-core";
import { at } from "./columns.ts";

/** The master keys that values of this database were made with. The check value proves which key it was. */
export const masterKeys = pgTable("master_keys", {
  keyId: text("key_id").primaryKey(),
  checkValue: text("check_value").notNull(),
  createdAt: at("created_at").notNull(),
});

/**
 * The keys of sealed turn content. The table is unlogged: WAL, base backups and standbys never hold a data key. A crash of
 * Postgres empties the table, and the replicas write their keys again.
 */
export const dataKeys = pgTable("data_keys", {
  id: uuid().primaryKey(),
  /** The hour of the turns' start in UTC, as in the name of its partition: 2026112920. */
  hour: text().notNull(),
  /** The data key, sealed with a master key. */
  sealed: text().notNull(),
});
