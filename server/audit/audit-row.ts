import { hash } from "node:crypto";
import { z } from "zod";
import type { AuditLogRow, NewAuditRow } from "../../db/audit-log.ts";
import { instantText } from "../time/instant-text.ts";
import { ACTOR_KINDS, type Actor } from "../actor.ts";

const AuditActor = z
  .object({
    kind: z.enum(ACTOR_KINDS).describe("`platform_key`, `operator`, or `system` for the service itself."),
    id: z.string().describe("The id of the key, or `system`."),
    name: z
      .string()
      .describe("The name of the key or of the operator, or the part of the service that acted."),
  })
  .describe("Who made the change.");

/** A row of the audit log as callers see it. They can compute `hash` from the other fields and the scope. */
export const AuditRow = z
  .object({
    seq: z.int().describe("The number of the row in its chain, from 1, without gaps."),
    at: instantText("When the row was written, with microseconds."),
    actor: AuditActor,
    action: z
      .string()
      .describe("What happened, as `noun.verb_past`. A request and its result are two actions."),
    userId: z.string().nullable().describe("The user whose engine it was about. null: it was about no user."),
    engineId: z
      .string()
      .meta({ format: "uuid" })
      .nullable()
      .describe("The engine that it was about. null: it was about no engine."),
    requestId: z.string().nullable().describe("The id of the request that led to it. null: no request did."),
    metadata: z
      .record(z.string(), z.unknown())
      .describe("Facts about the change; which ones depends on the action. It holds no secret."),
    durationMs: z
      .int()
      .nullable()
      .describe("How long the work took, in milliseconds. null: the row is about no work."),
    prevHash: z.string().describe("`hash` of the row before; 64 zeros in the first row."),
    hash: z
      .string()
      .describe(
        "SHA-256, as lower-case hex, of the canonical JSON (RFC 8785) of the other fields and `scope`: the product's id, or `platform`.",
      ),
  })
  .meta({
    id: "AuditRow",
    description: "A row of the audit log. Each row is linked to the one before by its hash.",
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
  const text = `${before}${row.at}${beforePrevHash}${row.prevHash}${beforeSeq}${row.seq}${after}`;
  return hash("sha256", text, "hex");
}

export function toAuditRow(row: AuditLogRow): AuditRow {
  const { scope: _scope, actor, metadata, ...rest } = row;
  return {
    ...rest,
    actor: JSON.parse(actor) as Actor,
    metadata: JSON.parse(metadata) as Record<string, unknown>,
  };
}
