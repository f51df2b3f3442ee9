import { createHash } from "node:crypto";
import type { AuditLogRow, NewAuditRow } from "../../db/audit-log.ts";
import type { Actor } from "./audit-entry.ts";

/** One row of the trail as callers see it. `hash` can be computed again from the other fields and the scope. */
export interface AuditRow {
  seq: number;
  /** ISO instant in microseconds. */
  at: string;
  actor: Actor;
  action: string;
  userId: string | null;
  engineId: string | null;
  requestId: string | null;
  metadata: Record<string, unknown>;
  durationMs: number | null;
  prevHash: string;
  hash: string;
}

/** What the first row of a chain has as its `prevHash`. */
export const GENESIS_HASH = "0".repeat(64);

/**
 * What the hash covers: the canonical JSON (RFC 8785) of `{ scope, ...AuditRow without hash }`, in pieces around the
 * instant, the previous hash and the seq, which a new row gets from the database only. Actor and metadata are
 * canonical JSON already and go in as they are stored, so that no change of their text goes unseen.
 */
export function toAuditTextPieces(row: NewAuditRow): readonly [string, string, string, string] {
  // RFC 8785 sorts the names; strings and whole numbers are as JSON.stringify writes them.
  return [
    `{"action":${JSON.stringify(row.action)},"actor":${row.actor},"at":"`,
    `","durationMs":${row.durationMs},"engineId":${JSON.stringify(row.engineId)}` +
      `,"metadata":${row.metadata},"prevHash":"`,
    `","requestId":${JSON.stringify(row.requestId)},"scope":${JSON.stringify(row.scope)},"seq":`,
    `,"userId":${JSON.stringify(row.userId)}}`,
  ];
}

/** The hash that a row ought to have: lower-case hex SHA-256. */
export function toAuditHash(row: Omit<AuditLogRow, "hash">): string {
  const [before, beforePrevHash, beforeSeq, after] = toAuditTextPieces(row);
  return createHash("sha256")
    .update(`${before}${row.at}${beforePrevHash}${row.prevHash}${beforeSeq}${row.seq}${after}`)
    .digest("hex");
}

export function toAuditRow(row: AuditLogRow): AuditRow {
  const { scope: _scope, actor, metadata, ...rest } = row;
  return {
    ...rest,
    actor: JSON.parse(actor) as Actor,
    metadata: JSON.parse(metadata) as Record<string, unknown>,
  };
}
