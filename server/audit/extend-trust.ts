import type { ChainEnd, ChainState } from "../../db/audit-anchors.ts";
import type { BaseContext } from "../context.ts";
import { checkAnchors, type MacKeyring } from "./audit-anchor.ts";
import { GENESIS_HASH } from "./audit-row.ts";
import type { ChainFault } from "./chain-check.ts";
import { walkChain } from "./walk-chain.ts";

/**
 * Walks from the last row that the service has vouched for to the head, or over `maxRows` rows. Without a fault, the
 * service may vouch for `last` too. So a MAC never covers a row that was changed before the service saw it linked.
 */
export async function extendTrust(
  ctx: Pick<BaseContext, "raw"> & { keyring: MacKeyring },
  { scope, state, maxRows = Infinity }: { scope: string; state: ChainState; maxRows?: number },
): Promise<{ last: ChainEnd; fault: ChainFault | undefined }> {
  const anchors = checkAnchors(ctx.keyring, state);
  const start = anchors.start ?? { seq: 0, hash: GENESIS_HASH };
  const before = anchors.head !== undefined && anchors.head.seq > start.seq ? anchors.head : start;
  if (anchors.fault) return { last: before, fault: anchors.fault };
  const { head = { seq: 0, hash: GENESIS_HASH } } = state;
  if (head.seq < before.seq) return { last: before, fault: { seq: head.seq + 1, problem: "anchor_differs" } };
  if (head.seq === before.seq) {
    const fault: ChainFault = { seq: head.seq, problem: "head_differs" };
    return { last: before, fault: head.hash === before.hash ? undefined : fault };
  }
  const points = [{ ...head, problem: "head_differs" as const }];
  return walkChain(ctx, { scope, before, toSeq: Math.min(head.seq, before.seq + maxRows), points });
}
