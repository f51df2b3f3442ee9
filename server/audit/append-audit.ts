import canonicalize from "canonicalize";
import { appendAuditRows, type AuditValues } from "../../db/audit-log.ts";
import type { Db } from "../../db/client.ts";
import type { AuditEntry } from "./audit-entry.ts";
import { toAuditTextPieces } from "./audit-row.ts";
import { toGrouped } from "./group-commit.ts";

/**
 * Appends to the scope's chain in the transaction of the change that it records. Call it last before the commit:
 * the head stays locked until then, which is what makes the chain gapless and its order the order of commits.
 */
export async function appendAudit(tx: Db, entry: AuditEntry): Promise<{ seq: number }> {
  const [seq] = await appendAuditRows(tx, [toAuditValues(entry)]);
  if (seq === undefined) throw new Error("the audit row was not appended");
  return { seq };
}

const appendGrouped = toGrouped(appendAuditRows);

/** For a call whose record is all that is written: a transaction of its own, together with others of the scope. */
export async function recordCall(db: Db, entry: AuditEntry): Promise<{ seq: number }> {
  return { seq: await appendGrouped(db, entry.scope, toAuditValues(entry)) };
}

/** For a statement that writes the change and its record at once. */
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
 * Metadata may quote what an engine wrote, and canonical JSON has no lone surrogates: they become U+FFFD, so that
 * no engine can make the change it caused unrecordable.
 */
function toCanonicalJson(value: object): string {
  const text = JSON.stringify(value);
  // JSON.stringify writes lone surrogates as escapes, and pairs as they are.
  const plain: unknown = text.includes("\\ud") ? JSON.parse(text, toWellFormed) : JSON.parse(text);
  return canonicalize(plain) ?? "{}";
}

function toWellFormed(_name: string, part: unknown): unknown {
  return typeof part === "string" ? part.toWellFormed() : part;
}
