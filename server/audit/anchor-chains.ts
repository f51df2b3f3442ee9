import { LRUCache } from "lru-cache";
import { findChainState, listChainsToAnchor, saveAnchor, type AnchorRow } from "../../db/audit-anchors.ts";
import type { BaseContext } from "../context.ts";
import { toAnchorMac, type MacKeyring } from "./audit-anchor.ts";
import type { AuditProblem, ChainFault } from "./chain-check.ts";
import { extendTrust } from "./extend-trust.ts";

const CHAINS_AT_A_TIME = 200;
/** A close waits for this many rows at the most: about a second. */
const ANCHOR_STEP_ROWS = 50_000;
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
  /** How many rows are checked before the anchor is saved. For tests. */
  anchorStepRows?: number;
};

/**
 * Vouches for the head of each chain that has grown. An anchor moves only over rows that verify, so a chain that was
 * changed keeps its last good anchor. An abort ends the pass after the rows that are being checked.
 */
export async function anchorChains(
  ctx: AnchorContext,
  signal?: AbortSignal,
): Promise<{ anchored: number; broken: number }> {
  const result = { anchored: 0, broken: 0 };
  let afterScope = "";
  for (;;) {
    const scopes = await listChainsToAnchor(ctx.raw, { afterScope, limit: CHAINS_AT_A_TIME });
    for (const scope of scopes) {
      if (signal?.aborted) return result;
      const fault = await anchorChain(ctx, scope, signal);
      result[fault === undefined ? "anchored" : "broken"] += 1;
      if (fault) ctx.log.error({ scope, ...fault }, "an audit chain does not verify");
    }
    afterScope = scopes.at(-1) ?? "";
    if (scopes.length < CHAINS_AT_A_TIME) return result;
  }
}

/** Saves the anchor after each step, so that a pass over a long chain can be cut off and goes on from there. */
async function anchorChain(
  ctx: AnchorContext,
  scope: string,
  signal?: AbortSignal,
): Promise<ChainFault | undefined> {
  for (;;) {
    const { fault, isAtHead } = await moveAnchor(ctx, scope);
    if (fault !== undefined || isAtHead || signal?.aborted === true) return fault;
  }
}

const toFault = (seq: number, problem: AuditProblem) => ({ fault: { seq, problem }, isAtHead: false });

async function moveAnchor(
  ctx: AnchorContext,
  scope: string,
): Promise<{ fault: ChainFault | undefined; isAtHead: boolean }> {
  const state = await findChainState(ctx.db, scope);
  const { head, anchors } = state;
  if (head === undefined) return toFault(1, "row_missing");
  const anchoredSeq = anchors.find(({ kind }) => kind === "head")?.seq ?? 0;
  if (ctx.madeAnchors.isOlder(scope, anchoredSeq)) return toFault(anchoredSeq + 1, "anchor_differs");
  const { last, fault } = await extendTrust(ctx, {
    scope,
    state,
    maxRows: ctx.anchorStepRows ?? ANCHOR_STEP_ROWS,
  });
  if (fault) return { fault, isAtHead: false };
  await saveSigned(ctx, { kind: "head", scope, ...last });
  ctx.madeAnchors.note({ scope, seq: last.seq });
  return { fault, isAtHead: last.seq >= head.seq };
}

export async function saveSigned(
  ctx: Pick<AnchorContext, "db" | "clock" | "keyring">,
  { kind, scope, seq, hash }: Pick<AnchorRow, "kind" | "scope" | "seq" | "hash">,
): Promise<void> {
  const claim = { kind, scope, seq, hash, at: new Date(ctx.clock.now()).toISOString() };
  await saveAnchor(ctx.db, { ...claim, mac: toAnchorMac(ctx.keyring, claim) });
}
