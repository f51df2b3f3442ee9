import {
  findAuditRetentionS,
  findChainState,
  findLastOldRow,
  listChainsToRetire,
  removeRetiredRows,
  type ChainEnd,
} from "../../db/audit-anchors.ts";
import { saveSigned, type AnchorContext } from "./anchor-chains.ts";
import { checkAnchors } from "./audit-anchor.ts";
import { GENESIS_HASH } from "./audit-row.ts";
import type { ChainFault } from "./chain-check.ts";
import { walkChain } from "./walk-chain.ts";

const ROWS_AT_A_TIME = 5_000;

/**
 * Removes the rows of every chain that are older than the retention. The service first checks them and vouches for the
 * last one of them (the `start` anchor), so that the rest of the chain still verifies. Rows that fail the check stay.
 * A chain always keeps its last row, and what the service has not yet vouched for.
 */
export async function retireAudit(ctx: AnchorContext, signal?: AbortSignal): Promise<{ removed: number }> {
  let removed = 0;
  const retentionS = await findAuditRetentionS(ctx.raw);
  if (retentionS === undefined) return { removed };
  for (const scope of await listChainsToRetire(ctx.raw, retentionS)) {
    for (;;) {
      if (signal?.aborted) return { removed };
      // Rows that an interrupted pass has left come first.
      const gone = await removeRetiredRows(ctx.raw, scope, ROWS_AT_A_TIME);
      removed += gone;
      if (gone === ROWS_AT_A_TIME) continue;
      const { isMoved, fault } = await moveStart(ctx, scope, retentionS);
      if (fault) ctx.log.error({ scope, ...fault }, "an audit chain does not verify");
      if (!isMoved) break;
    }
  }
  return { removed };
}

/** Moves the chain's start over the next old rows, if they verify. */
async function moveStart(
  ctx: AnchorContext,
  scope: string,
  retentionS: number,
): Promise<{ isMoved: boolean; fault?: ChainFault }> {
  const state = await findChainState(ctx.db, scope);
  const anchors = checkAnchors(ctx.keyring, state);
  if (anchors.fault) return { isMoved: false, fault: anchors.fault };
  const before: ChainEnd = anchors.start ?? { seq: 0, hash: GENESIS_HASH };
  const limit = Math.min(anchors.head?.seq ?? 0, (state.head?.seq ?? 0) - 1, before.seq + ROWS_AT_A_TIME);
  const last = await findLastOldRow(ctx.raw, { scope, afterSeq: before.seq, toSeq: limit, retentionS });
  if (last === undefined) return { isMoved: false };
  const points = anchors.head ? [{ ...anchors.head, problem: "anchor_differs" as const }] : [];
  const { fault } = await walkChain(ctx, { scope, before, toSeq: last.seq, points });
  if (fault) return { isMoved: false, fault };
  await saveSigned(ctx, { kind: "start", scope, ...last });
  return { isMoved: true };
}
