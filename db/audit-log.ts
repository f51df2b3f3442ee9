import { and, desc, eq, gt, gte, lt, lte, sql, type SQL } from "drizzle-orm";
import type { Db } from "./client.ts";
import { toStatement } from "./prepared-statement.ts";
import { auditHeads, auditLog } from "./schema.ts";

/** A row as the hash covers it: the instant in microseconds, actor and metadata as canonical JSON. */
export type AuditLogRow = typeof auditLog.$inferSelect;

/** The one text form of an instant, for the writer, the verifier and whoever reads the trail. */
const toInstantText = (instant: SQL): SQL<string> =>
  sql<string>`to_char(${instant} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;

const columns = {
  scope: auditLog.scope,
  seq: auditLog.seq,
  at: toInstantText(sql`${auditLog.at}`).as("at_text"),
  actor: auditLog.actor,
  action: auditLog.action,
  userId: auditLog.userId,
  engineId: auditLog.engineId,
  requestId: auditLog.requestId,
  metadata: auditLog.metadata,
  durationMs: auditLog.durationMs,
  prevHash: auditLog.prevHash,
  hash: auditLog.hash,
};

/** What the caller knows of a row before it has its place in the chain. */
export type NewAuditRow = Omit<AuditLogRow, "seq" | "at" | "prevHash" | "hash">;

/** The hashed text in the pieces that stand around instant, previous hash and seq, in this order. */
export type AuditTextPieces = readonly [string, string, string, string];

const value = (name: keyof NewAuditRow) => sql.placeholder(name);
const piece = (name: "piece0" | "piece1" | "piece2" | "piece3") => sql`${sql.placeholder(name)}::text`;

// All in one statement: the head stays locked from here to the commit, and each round trip in between would keep
// every other change of the scope waiting. The clock is read after the wait for the lock, so instants rise with seq.
const appendRow = toStatement<NewAuditRow & Record<string, unknown>, { seq: string }>(
  "audit_append",
  sql`with head as materialized (
        select seq, hash from audit_heads where scope = ${value("scope")} for update
      ), placed as materialized (
        select head.seq + 1 as seq, head.hash as prev_hash,
          ${toInstantText(sql`(orch_now() + (clock_timestamp() - statement_timestamp()))`)} as at
        from head
      ), hashed as materialized (
        select placed.*, encode(sha256(convert_to(
            ${piece("piece0")} || at || ${piece("piece1")} || prev_hash || ${piece("piece2")} || seq::text ||
            ${piece("piece3")}, 'UTF8')), 'hex') as hash
        from placed
      ), moved as (
        update audit_heads set seq = hashed.seq, hash = hashed.hash from hashed
        where audit_heads.scope = ${value("scope")}
      )
      insert into audit_log (scope, seq, at, actor, action, user_id, engine_id, request_id, metadata, duration_ms,
        prev_hash, hash)
      select ${value("scope")}, seq, at::timestamptz, ${value("actor")}, ${value("action")}, ${value("userId")},
        ${value("engineId")}::uuid, ${value("requestId")}, ${value("metadata")}, ${value("durationMs")}::integer,
        prev_hash, hash
      from hashed
      returning seq`,
);

/**
 * Locks the scope's head until the end of the transaction, appends the row after it and moves it there. Returns the
 * row's seq, or undefined when the scope has no head yet.
 */
export async function appendAuditRow(
  tx: Db,
  row: NewAuditRow,
  pieces: AuditTextPieces,
): Promise<number | undefined> {
  const [piece0, piece1, piece2, piece3] = pieces;
  const [appended] = await appendRow(tx, { ...row, piece0, piece1, piece2, piece3 });
  return appended === undefined ? undefined : Number(appended.seq);
}

/** Does nothing when the scope has a head; waits for a transaction that is making one. */
export async function insertAuditHead(tx: Db, head: typeof auditHeads.$inferInsert): Promise<void> {
  await tx.insert(auditHeads).values(head).onConflictDoNothing();
}

export interface AuditPage {
  scope: string;
  userId?: string | undefined;
  action?: string | undefined;
  fromSeq?: number | undefined;
  /** Rows below this seq. */
  beforeSeq?: number | undefined;
  limit: number;
}

/** Newest first. */
export async function listAuditRows(db: Db, page: AuditPage): Promise<AuditLogRow[]> {
  return db
    .select(columns)
    .from(auditLog)
    .where(
      and(
        eq(auditLog.scope, page.scope),
        page.userId === undefined ? undefined : eq(auditLog.userId, page.userId),
        page.action === undefined ? undefined : eq(auditLog.action, page.action),
        page.fromSeq === undefined ? undefined : gte(auditLog.seq, page.fromSeq),
        page.beforeSeq === undefined ? undefined : lt(auditLog.seq, page.beforeSeq),
      ),
    )
    .orderBy(desc(auditLog.seq))
    .limit(page.limit);
}

export interface AuditEnds {
  /** 0 and empty when the scope has no head. */
  headSeq: number;
  headHash: string;
  /** The highest seq that has a row, 0 when there is none. */
  lastSeq: number;
}

/** Head and last row in one snapshot: they are equal unless somebody tampered. */
export async function findAuditEnds(db: Db, scope: string): Promise<AuditEnds> {
  const [ends] = await db.execute<{ headSeq: string; headHash: string; lastSeq: string }>(
    sql`select coalesce(max(head.seq), 0) as "headSeq", coalesce(max(head.hash), '') as "headHash",
          coalesce((select max(seq) from audit_log where scope = ${scope}), 0) as "lastSeq"
        from audit_heads head where head.scope = ${scope}`,
  );
  if (ends === undefined) throw new Error("an aggregate without a row");
  return { headSeq: Number(ends.headSeq), headHash: ends.headHash, lastSeq: Number(ends.lastSeq) };
}

/** The next rows of a walk along the chain, oldest first. */
export async function listAuditRowsAfter(
  db: Db,
  walk: { scope: string; afterSeq: number; toSeq: number; limit: number },
): Promise<AuditLogRow[]> {
  return db
    .select(columns)
    .from(auditLog)
    .where(
      and(eq(auditLog.scope, walk.scope), gt(auditLog.seq, walk.afterSeq), lte(auditLog.seq, walk.toSeq)),
    )
    .orderBy(auditLog.seq)
    .limit(walk.limit);
}

const PARTITION_ROWS = 10_000_000;

/** Makes the partition that the longest chain is in and the next one: ten million rows of warning. */
export async function ensureAuditPartitions(db: Db): Promise<void> {
  await db.execute(
    sql`select ensure_audit_partition(seq), ensure_audit_partition(seq + ${PARTITION_ROWS}::bigint)
        from (select coalesce(max(seq), 0) + 1 as seq from audit_heads) longest`,
  );
}
