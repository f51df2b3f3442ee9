import { sql } from "drizzle-orm";
import { boolean, check, index, integer, pgTable, primaryKey, text, uuid } from "drizzle-orm/pg-core";
import { at, long, oneOf } from "./columns.ts";

export const auditHeads = pgTable("audit_heads", {
  /** A product's id, or `platform`. */
  scope: text().primaryKey(),
  seq: long("seq").notNull(),
  hash: text().notNull(),
});

/** Append-only, and partitioned by ranges of seq. Each scope is a hash chain without gaps. */
export const auditLog = pgTable(
  "audit_log",
  {
    scope: text().notNull(),
    seq: long("seq").notNull(),
    at: at("at").notNull(),
    /** Canonical JSON of the actor. */
    actor: text().notNull(),
    action: text().notNull(),
    userId: text("user_id"),
    engineId: uuid("engine_id"),
    requestId: text("request_id"),
    /** Canonical JSON. */
    metadata: text().notNull(),
    durationMs: integer("duration_ms"),
    prevHash: text("prev_hash").notNull(),
    hash: text().notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.scope, table.seq] }),
    index("audit_log_user_idx").on(table.scope, table.userId, table.seq),
  ],
);

export const ANCHOR_KINDS = ["head", "start"] as const;

/**
 * What the service vouches for with a MAC, for each chain. `head`: no row up to `seq` may differ from what the service
 * saw then. `start`: retention has removed every row up to `seq`, and the next row links to `hash`.
 */
export const auditAnchors = pgTable(
  "audit_anchors",
  {
    scope: text().notNull(),
    kind: text({ enum: ANCHOR_KINDS }).notNull(),
    seq: long("seq").notNull(),
    hash: text().notNull(),
    at: at("at").notNull(),
    mac: text().notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.scope, table.kind] }),
    check("audit_anchors_kind_check", oneOf("kind", ANCHOR_KINDS)),
  ],
);

/** How old rows of the audit log must be before they may be removed. Only the owner of the schema writes it. */
export const auditRetention = pgTable(
  "audit_retention",
  {
    singleton: boolean().primaryKey().default(true),
    seconds: long("seconds").notNull(),
  },
  () => [check("audit_retention_singleton_check", sql.raw("singleton"))],
);
