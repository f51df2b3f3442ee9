import { integer, pgTable, primaryKey, text, timestamp, uuid } from "drizzle-orm/pg-core";

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
    startedAt: timestamp("started_at", { withTimezone: true, mode: "string" }).notNull(),
    limit: integer().notNull(),
    used: integer().notNull(),
    /** Calls that the last statement has let through. `returning` cannot show the row before an update. */
    taken: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.productId, table.kind] })],
);
