import type { ChainState } from "../../db/audit-anchors.ts";
import type { BaseContext } from "../context.ts";
import { checkAnchors, type MacKeyring } from "./audit-anchor.ts";
import { GENESIS_HASH } from "./audit-row.ts";
import type { ChainFault } from "./chain-check.ts";
import { walkChain } from "./walk-chain.ts";

/**
 * Walks from the last row that the service has vouched for to the head. Without a fault, the service may vouch for the
 * head too. So a MAC never covers a row that was changed before the service saw it linked.
 */
export async function extendTrust(
  ctx: Pick<BaseContext, "raw"> & { keyring: MacKeyring },
  scope: string,
  state: ChainState,
): Promise<{ fault: ChainFault | undefined }> {
  const anchors = checkAnchors(ctx.keyring, state);
  if (anchors.fault) return { fault: anchors.fault };
  const start = anchors.start ?? { seq: 0, hash: GENESIS_HASH };
  const before = anchors.head !== undefined && anchors.head.seq > start.seq ? anchors.head : start;
  const { head = { seq: 0, hash: GENESIS_HASH } } = state;
  if (head.seq < before.seq) return { fault: { seq: head.seq + 1, problem: "anchor_differs" } };
  if (head.seq === before.seq) {
    return { fault: head.hash === before.hash ? undefined : { seq: head.seq, problem: "head_differs" } };
  }
  const points = [{ ...head, problem: "head_differs" as const }];
  return walkChain(ctx, { scope, before, toSeq: head.seq, points });
}
