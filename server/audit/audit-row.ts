import { createHash } from "node:crypto";
import { z } from "zod";
import type { AuditLogRow, NewAuditRow } from "../../db/audit-log.ts";
import { ACTOR_KINDS, type Actor } from "./audit-entry.ts";

/** A row of the audit log as callers see it. They can compute `hash` from the other fields and the scope. */
export const AuditRow = z.object({
  seq: z.number(),
  /** ISO instant with microseconds. */
  at: z.string(),
  actor: z.object({ kind: z.enum(ACTOR_KINDS), id: z.string(), name: z.string() }),
  action: z.string(),
  userId: z.string().nullable(),
  engineId: z.string().nullable(),
  requestId: z.string().nullable(),
  metadata: z.record(z.string(), z.unknown()),
  durationMs: z.number().nullable(),
  prevHash: z.string(),
  hash: z.string(),
});
export type AuditRow = z.infer<typeof AuditRow>;

/** The `prevHash` of a chain's first row. */
export const GENESIS_HASH = "0".repeat(64);

/**
 * Returns the text that the hash covers: the canonical JSON (RFC 8785) of `{ scope, ...AuditRow without hash }`. It is
 * in pieces, because the database adds the instant, the previous hash and the seq of a new row. Actor and metadata are
 * stored as canonical JSON and go in unchanged, so that the hash detects each change of the stored text.
 */
export function toAuditTextPieces(row: NewAuditRow): readonly [string, string, string, string] {
  // RFC 8785 sorts the names. Its strings and whole numbers are those of JSON.stringify.
  return [
    `{"action":${JSON.stringify(row.action)},"actor":${row.actor},"at":"`,
    `","durationMs":${row.durationMs},"engineId":${JSON.stringify(row.engineId)}` +
      `,"metadata":${row.metadata},"prevHash":"`,
    `","requestId":${JSON.stringify(row.requestId)},"scope":${JSON.stringify(row.scope)},"seq":`,
    `,"userId":${JSON.stringify(row.userId)}}`,
  ];
}

/** Computes the hash of a row: lower-case hex SHA-256. */
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
