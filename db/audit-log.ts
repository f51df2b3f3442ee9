import type { Readable } from "node:stream";
import { and, desc, eq, gte, lt, sql, type SQL } from "drizzle-orm";
import type { Db, RawSql } from "./client.ts";
import { toStatement } from "./prepared-statement.ts";
import { auditLog } from "./audit-tables.ts";

/** A row in the form that its hash covers: the instant in microseconds, actor and metadata as canonical JSON. */
export type AuditLogRow = typeof auditLog.$inferSelect;

/** The text form of an instant in the audit log. The writer, the verifier and the readers all use this one. */
export const toInstantText = (instant: SQL): SQL<string> =>
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

/** A row before it is in the chain. The database adds the seq, the instant and the hashes. */
export type NewAuditRow = Omit<AuditLogRow, "seq" | "at" | "prevHash" | "hash">;

/** A row to append, with the text that its hash covers, in pieces around the instant, previous hash and seq. */
export interface AuditValues extends NewAuditRow {
  beforeAt: string;
  beforePrevHash: string;
  beforeSeq: string;
  afterSeq: string;
}

/** The columns of `AuditValues` for `json_to_recordset`. */
export const AUDIT_COLUMNS = sql.raw(`scope text, actor text, action text, "userId" text, "engineId" uuid,
  "requestId" text, metadata text, "durationMs" integer,
  "beforeAt" text, "beforePrevHash" text, "beforeSeq" text, "afterSeq" text`);

/**
 * An SQL expression that appends a row to its scope's chain and returns the seq. It locks the scope's head until the
 * end of the transaction, and inserts the head of a new scope. For statements that write a change and its audit row at
 * once. Such a statement needs the `AUDIT_COLUMNS` in scope, and must lock what it changes first, against deadlocks.
 */
export const APPEND_AUDIT =
  sql.raw(`append_audit(scope, actor, action, "userId", "engineId", "requestId", metadata,
  "durationMs", "beforeAt", "beforePrevHash", "beforeSeq", "afterSeq")`);

const appendRows = toStatement<{ rows: string }, { seq: string }>(
  "audit_append",
  sql`select ${APPEND_AUDIT} as seq from json_to_recordset(${sql.placeholder("rows")}::json) as row(${AUDIT_COLUMNS})`,
);

/** Appends the rows in this order and returns their seqs. Rows of several scopes could deadlock: pass one scope. */
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

/** The columns of a row in the order in which `copyAuditRows` and `toAuditLogRow` have them. */
export const AUDIT_LOG_COLUMNS = [
  "scope",
  "seq",
  "at",
  "actor",
  "action",
  "user_id",
  "engine_id",
  "request_id",
  "metadata",
  "duration_ms",
  "prev_hash",
  "hash",
] as const;

export interface AuditWalk {
  scope: string;
  afterSeq: number;
  toSeq: number;
}

/**
 * The rows of the walk, oldest first, in the text format of COPY: the cheapest way to read many rows. Read the stream to
 * its end, or its connection stays busy.
 */
export async function copyAuditRows(raw: RawSql, { scope, afterSeq, toSeq }: AuditWalk): Promise<Readable> {
  // COPY takes no parameters.
  const literal = `'${scope.replaceAll("'", "''")}'`;
  return raw
    .unsafe(
      `copy (select ${AUDIT_LOG_COLUMNS.join(", ")} from audit_log
         where scope = ${literal} and seq > ${Math.trunc(afterSeq)} and seq <= ${Math.trunc(toSeq)} order by seq) to stdout`,
    )
    .readable();
}

/** The hash of one row. undefined: there is no such row. */
export async function findAuditHash(raw: RawSql, scope: string, seq: number): Promise<string | undefined> {
  const [row] = await raw<{ hash: string }[]>`
    select hash from audit_log where scope = ${scope} and seq = ${seq}`;
  return row?.hash;
}

const PARTITION_ROWS = 10_000_000;

/** Makes the partition of the longest chain's next row and the one after, so ten million rows ahead. */
export async function ensureAuditPartitions(db: Db): Promise<void> {
  await db.execute(
    sql`select ensure_audit_partition(seq), ensure_audit_partition(seq + ${PARTITION_ROWS}::bigint)
        from (select coalesce(max(seq), 0) + 1 as seq from audit_heads) longest`,
  );
}
