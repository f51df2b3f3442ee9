import canonicalize from "canonicalize";
import { appendAuditRows, type AuditValues } from "../../db/audit-log.ts";
import type { Db } from "../../db/client.ts";
import type { AuditEntry } from "./audit-entry.ts";
import { toAuditTextPieces } from "./audit-row.ts";
import { GroupCommit } from "./group-commit.ts";

/**
 * Appends to the scope's chain, in the transaction of the change that the entry records. Call it last before the
 * commit. The chain's head stays locked until then: this keeps the chain gapless, and its order the order of commits.
 */
export async function appendAudit(tx: Db, entry: AuditEntry): Promise<{ seq: number }> {
  const [seq] = await appendAuditRows(tx, [toAuditValues(entry)]);
  if (seq === undefined) throw new Error(`the audit row of ${entry.action} got no seq`);
  return { seq };
}

/** Audit rows that are written without another change. Rows of one scope that arrive together share a commit. */
export type AuditAppends = GroupCommit<AuditValues, number>;

export function openAuditAppends(db: Db): AuditAppends {
  return new GroupCommit(async (rows) => appendAuditRows(db, rows));
}

/** Appends the entry of a call that changes nothing else in the database. */
export async function recordCall(
  ctx: { auditAppends: AuditAppends },
  entry: AuditEntry,
): Promise<{ seq: number }> {
  return { seq: await ctx.auditAppends.add(entry.scope, toAuditValues(entry)) };
}

/** For a statement that writes a change and its audit row at once. */
export function toAuditValues(entry: AuditEntry): AuditValues {
  const row = {
    scope: entry.scope,
    actor: toCanonicalJson(entry.actor),
    action: entry.action,
    userId: entry.userId ?? null,
    engineId: entry.engineId ?? null,
    requestId: entry.requestId ?? null,
    metadata: toCanonicalJson(entry.metadata ?? {}),
    durationMs: typeof entry.durationMs === "number" ? Math.round(entry.durationMs) : null,
  };
  const [beforeAt, beforePrevHash, beforeSeq, afterSeq] = toAuditTextPieces(row);
  return { ...row, beforeAt, beforePrevHash, beforeSeq, afterSeq };
}

/**
 * Replaces lone surrogates by U+FFFD, because canonical JSON has none. Metadata may quote an engine's text, and no
 * text of an engine may make a change impossible to record.
 */
function toCanonicalJson(value: object): string {
  const text = JSON.stringify(value);
  // JSON.stringify escapes lone surrogates only, so text without an escape has none.
  const plain: unknown = text.includes("\\ud") ? JSON.parse(text, toWellFormed) : JSON.parse(text);
  return canonicalize(plain) ?? "{}";
}

function toWellFormed(_name: string, part: unknown): unknown {
  return typeof part === "string" ? part.toWellFormed() : part;
}
