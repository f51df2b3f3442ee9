import { check, integer, pgTable, primaryKey, text, uuid } from "drizzle-orm/pg-core";
import { at, long, oneOf } from "./columns.ts";

export const RATE_KINDS = ["requests", "turns"] as const;

/**
 * The present window of each rate limit of a product. Without a foreign key, whose check would wait for each transaction
 * that locks the product. The row of a busy product changes all the time, so it has no other index.
 */
export const rateWindows = pgTable(
  "rate_windows",
  {
    productId: uuid("product_id").notNull(),
    kind: text({ enum: RATE_KINDS }).notNull(),
    /** The window lasts a minute from here, by the database's clock. */
    startedAt: at("started_at").notNull(),
    limit: integer().notNull(),
    used: integer().notNull(),
    /** Calls that the last statement has let through. `returning` cannot show the row before an update. */
    taken: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.productId, table.kind] })],
);

export const STORED_KINDS = ["replies", "turn_log"] as const;

/** How many bytes were stored for a product or an operator in each hour. */
export const storedBytes = pgTable(
  "stored_bytes",
  {
    /** A product's id, or `operator:<id of the key>`. */
    scope: text().notNull(),
    kind: text({ enum: STORED_KINDS }).notNull(),
    /** When the hour began. */
    hour: at("hour").notNull(),
    bytes: long("bytes").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.scope, table.kind, table.hour] }),
    check("stored_bytes_kind_check", oneOf("kind", STORED_KINDS)),
  ],
);
