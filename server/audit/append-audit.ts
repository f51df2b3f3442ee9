import canonicalize from "canonicalize";
import {
  appendAuditRow,
  insertAuditHead,
  type AuditTextPieces,
  type NewAuditRow,
} from "../../db/audit-log.ts";
import type { Db } from "../../db/client.ts";
import type { AuditEntry } from "./audit-entry.ts";
import { GENESIS_HASH, toAuditTextPieces } from "./audit-row.ts";

/**
 * Appends to the scope's chain in the transaction of the change that it records. Call it last before the commit:
 * the head stays locked until then, which is what makes the chain gapless and its order the order of commits.
 */
export async function appendAudit(tx: Db, entry: AuditEntry): Promise<{ seq: number }> {
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
  const pieces = toAuditTextPieces(row);
  const seq = (await appendAuditRow(tx, row, pieces)) ?? (await appendFirst(tx, row, pieces));
  return { seq };
}

/** The first row of a scope. Of several writers at once one makes the head, and the others wait for its commit. */
async function appendFirst(tx: Db, row: NewAuditRow, pieces: AuditTextPieces): Promise<number> {
  await insertAuditHead(tx, { scope: row.scope, seq: 0, hash: GENESIS_HASH });
  const seq = await appendAuditRow(tx, row, pieces);
  if (seq === undefined) throw new Error(`the audit head of ${row.scope} vanished while it was made`);
  return seq;
}

/**
 * Metadata may quote what an engine wrote, and canonical JSON has no lone surrogates: they become U+FFFD, so that
 * no engine can make the change it caused unrecordable.
 */
function toCanonicalJson(value: object): string {
  const plain: unknown = JSON.parse(JSON.stringify(value), (_name, part: unknown) =>
    typeof part === "string" ? part.toWellFormed() : part,
  );
  return canonicalize(plain) ?? "{}";
}
