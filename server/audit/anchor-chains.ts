import { LRUCache } from "lru-cache";
import { findChainState, listChainsToAnchor, saveAnchor, type AnchorRow } from "../../db/audit-anchors.ts";
import type { BaseContext } from "../context.ts";
import { toAnchorMac, type MacKeyring } from "./audit-anchor.ts";
import type { ChainFault } from "./chain-check.ts";
import { extendTrust } from "./extend-trust.ts";

const CHAINS_AT_A_TIME = 200;
const MAX_REMEMBERED = 10_000;

/** The anchors that this process has made. An anchor in the database that is older was put back, or removed. */
export class MadeAnchors {
  readonly #seqs = new LRUCache<string, number>({ max: MAX_REMEMBERED });

  note({ scope, seq }: Pick<AnchorRow, "scope" | "seq">): void {
    this.#seqs.set(scope, seq);
  }

  isOlder(scope: string, seq: number): boolean {
    return seq < (this.#seqs.get(scope) ?? 0);
  }
}

export type AnchorContext = Pick<BaseContext, "db" | "raw" | "clock" | "log"> & {
  keyring: MacKeyring;
  madeAnchors: MadeAnchors;
};

/**
 * Vouches for the head of each chain that has grown. An anchor moves only over rows that verify, so a chain that was
 * changed keeps its last good anchor. It also renews MACs of older master keys.
 */
export async function anchorChains(
  ctx: AnchorContext,
  signal?: AbortSignal,
): Promise<{ anchored: number; broken: number }> {
  const result = { anchored: 0, broken: 0 };
  let afterScope = "";
  for (;;) {
    const page = { keyId: ctx.keyring.firstKeyId, afterScope, limit: CHAINS_AT_A_TIME };
    const scopes = await listChainsToAnchor(ctx.raw, page);
    for (const scope of scopes) {
      if (signal?.aborted) return result;
      const fault = await anchorChain(ctx, scope);
      result[fault === undefined ? "anchored" : "broken"] += 1;
      if (fault) ctx.log.error({ scope, ...fault }, "an audit chain does not verify");
    }
    afterScope = scopes.at(-1) ?? "";
    if (scopes.length < CHAINS_AT_A_TIME) return result;
  }
}

async function anchorChain(ctx: AnchorContext, scope: string): Promise<ChainFault | undefined> {
  const state = await findChainState(ctx.db, scope);
  const { head, anchors } = state;
  if (head === undefined) return { seq: 1, problem: "row_missing" };
  const anchoredSeq = anchors.find(({ kind }) => kind === "head")?.seq ?? 0;
  if (ctx.madeAnchors.isOlder(scope, anchoredSeq)) return { seq: anchoredSeq + 1, problem: "anchor_differs" };
  const { fault } = await extendTrust(ctx, scope, state);
  if (fault) return fault;
  await saveSigned(ctx, { kind: "head", scope, ...head });
  ctx.madeAnchors.note({ scope, seq: head.seq });
  const start = anchors.find(({ kind }) => kind === "start");
  if (start && !start.mac.startsWith(`${ctx.keyring.firstKeyId}:`)) await saveSigned(ctx, start);
  return undefined;
}

export async function saveSigned(
  ctx: Pick<AnchorContext, "db" | "clock" | "keyring">,
  { kind, scope, seq, hash }: Pick<AnchorRow, "kind" | "scope" | "seq" | "hash">,
): Promise<void> {
  const claim = { kind, scope, seq, hash, at: new Date(ctx.clock.now()).toISOString() };
  await saveAnchor(ctx.db, { ...claim, mac: toAnchorMac(ctx.keyring, claim) });
}
