import { and, desc, eq, gt, gte, lt, lte, sql, type SQL } from "drizzle-orm";
import type { Db } from "./client.ts";
import { toStatement } from "./prepared-statement.ts";
import { auditLog } from "./schema.ts";

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

/** A row to append, and the text that its hash covers: the pieces around instant, previous hash and seq. */
export interface AuditValues extends NewAuditRow {
  beforeAt: string;
  beforePrevHash: string;
  beforeSeq: string;
  afterSeq: string;
}

/** `AuditValues` as columns of a JSON record. */
export const AUDIT_COLUMNS = sql.raw(`scope text, actor text, action text, "userId" text, "engineId" uuid,
  "requestId" text, metadata text, "durationMs" integer,
  "beforeAt" text, "beforePrevHash" text, "beforeSeq" text, "afterSeq" text`);

/**
 * Locks the scope's head until the end of the transaction, makes it if need be, appends the row after it and moves it
 * there; its value is the seq. For statements that write a change and its record at once: they have the
 * `AUDIT_COLUMNS` in scope, and the locks of the change before they call this.
 */
export const APPEND_AUDIT =
  sql.raw(`append_audit(scope, actor, action, "userId", "engineId", "requestId", metadata,
  "durationMs", "beforeAt", "beforePrevHash", "beforeSeq", "afterSeq")`);

const appendRows = toStatement<{ rows: string }, { seq: string }>(
  "audit_append",
  sql`select ${APPEND_AUDIT} as seq from json_to_recordset(${sql.placeholder("rows")}::json) as row(${AUDIT_COLUMNS})`,
);

/** In this order; returns their seqs. Rows of more than one scope are a matter of the order of locks. */
export async function appendAuditRows(db: Db, rows: readonly AuditValues[]): Promise<number[]> {
  const appended = await appendRows(db, { rows: JSON.stringify(rows) });
  return appended.map(({ seq }) => Number(seq));
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
