import { copyAuditRows } from "../../db/audit-log.ts";
import type { ChainEnd } from "../../db/audit-anchors.ts";
import type { BaseContext } from "../context.ts";
import { toAuditHash } from "./audit-row.ts";
import { ChainCheck, type ChainFault, type ChainPoint } from "./chain-check.ts";
import { OWN_PLACES, toAuditLogRow, toCopyLines } from "./copied-rows.ts";

/** Bounds how long one statement runs. */
const CHUNK_ROWS = 50_000;

export interface ChainWalk {
  scope: string;
  /** The row before the first one to check. */
  before: ChainEnd;
  toSeq: number;
  points: readonly ChainPoint[];
}

export interface WalkedChain {
  checked: number;
  /** The last good row. */
  last: ChainEnd;
  fault: ChainFault | undefined;
}

/** Checks the rows one after the other, and stops at the first that is missing, changed or not linked to the one before. */
export async function walkChain(
  ctx: Pick<BaseContext, "raw">,
  { scope, before, toSeq, points }: ChainWalk,
): Promise<WalkedChain> {
  const check = new ChainCheck(
    before,
    points.filter(({ seq }) => seq <= toSeq),
  );
  while (check.fault === undefined && check.last.seq < toSeq) {
    const afterSeq = check.last.seq;
    const chunk = { scope, afterSeq, toSeq: Math.min(toSeq, afterSeq + CHUNK_ROWS) };
    for await (const lines of toCopyLines(await copyAuditRows(ctx.raw, chunk))) {
      for (const line of lines) acceptLine(check, line);
    }
    if (check.last.seq < chunk.toSeq) break;
  }
  const fault = check.end(toSeq);
  return { checked: check.checked, last: check.last, fault };
}

function acceptLine(check: ChainCheck, line: string): void {
  // After a fault, the rest of the chunk is read and not looked at.
  if (line === "" || check.fault !== undefined) return;
  const row = toAuditLogRow(line, OWN_PLACES);
  check.accept({
    seq: row.seq,
    prevHash: row.prevHash,
    hash: row.hash,
    isIntact: row.hash === toAuditHash(row),
  });
}
