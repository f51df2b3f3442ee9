import { z } from "zod";
import { findAuditEnds, listAuditRowsAfter, type AuditEnds } from "../../db/audit-log.ts";
import type { BaseContext } from "../context.ts";
import { GENESIS_HASH, toAuditHash } from "./audit-row.ts";

export interface VerifyAuditInput {
  /** A product's id, or `platform`. */
  scope: string;
  fromSeq?: number | undefined;
  toSeq?: number | undefined;
}

export const AuditVerdict = z.object({
  ok: z.boolean().describe("Whether every checked row is present, unchanged and linked to the row before."),
  checked: z.int().describe("How many rows in sequence were found good."),
  headSeq: z.int().describe("The number of the chain's last row; 0 for an empty chain."),
  headHash: z
    .string()
    .describe(
      "The hash of the chain's last row; empty for an empty chain. Keep a copy elsewhere: it proves later that no row up to `headSeq` was rewritten.",
    ),
  firstBadSeq: z
    .int()
    .optional()
    .describe("The first row that is missing, changed or not linked. Absent: there is none."),
});
export type AuditVerdict = z.infer<typeof AuditVerdict>;

const CHUNK_ROWS = 1_000;

/**
 * Walks the chain in chunks up to its present head. Stops at the first row that is missing, changed or not linked to
 * the row before. Rows that are appended during the walk are not checked.
 */
export async function verifyAudit(
  ctx: Pick<BaseContext, "db">,
  input: VerifyAuditInput,
): Promise<AuditVerdict> {
  const ends = await findAuditEnds(ctx.db, input.scope);
  const fromSeq = input.fromSeq ?? 1;
  const toSeq = Math.min(input.toSeq ?? ends.headSeq, ends.headSeq);
  const { checked, badSeq } = await walk(ctx, { scope: input.scope, fromSeq, toSeq, ends });
  // Rows beyond the head mean that the head was moved back. Only a walk to the end can tell.
  const beyond = input.toSeq === undefined && ends.lastSeq > ends.headSeq ? ends.headSeq + 1 : undefined;
  const firstBadSeq = badSeq ?? beyond;
  const result = { checked, headSeq: ends.headSeq, headHash: ends.headHash };
  return firstBadSeq === undefined ? { ok: true, ...result } : { ok: false, ...result, firstBadSeq };
}

interface Walk {
  scope: string;
  fromSeq: number;
  toSeq: number;
  ends: AuditEnds;
}

async function walk(
  ctx: Pick<BaseContext, "db">,
  { scope, fromSeq, toSeq, ends }: Walk,
): Promise<{ checked: number; badSeq?: number }> {
  let prevHash = await findHashBefore(ctx, scope, fromSeq);
  let nextSeq = fromSeq;
  while (nextSeq <= toSeq) {
    const rows = await listAuditRowsAfter(ctx.db, { scope, afterSeq: nextSeq - 1, toSeq, limit: CHUNK_ROWS });
    for (const row of rows) {
      const isLinked = row.seq === nextSeq && row.prevHash === prevHash && row.hash === toAuditHash(row);
      const isLikeHead = row.seq !== ends.headSeq || row.hash === ends.headHash;
      if (!isLinked || !isLikeHead) return { checked: nextSeq - fromSeq, badSeq: nextSeq };
      prevHash = row.hash;
      nextSeq += 1;
    }
    // The chain has fewer rows than its head says: its tail was deleted.
    if (rows.length === 0) return { checked: nextSeq - fromSeq, badSeq: nextSeq };
  }
  return { checked: nextSeq - fromSeq };
}

/** The hash that the first row of the walk must link to; undefined if the row before it is missing. */
async function findHashBefore(
  ctx: Pick<BaseContext, "db">,
  scope: string,
  seq: number,
): Promise<string | undefined> {
  if (seq <= 1) return GENESIS_HASH;
  const [before] = await listAuditRowsAfter(ctx.db, { scope, afterSeq: seq - 2, toSeq: seq - 1, limit: 1 });
  return before?.hash;
}
