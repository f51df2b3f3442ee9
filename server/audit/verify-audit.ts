import { z } from "zod";
import { findChainState, isChainExpected, type ChainEnd, type ChainState } from "../../db/audit-anchors.ts";
import { findAuditHash } from "../../db/audit-log.ts";
import type { BaseContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import { checkAnchors, findMacProblem, type CheckedAnchors, type MacKeyring } from "./audit-anchor.ts";
import type { AuditHead } from "./audit-head.ts";
import { GENESIS_HASH } from "./audit-row.ts";
import { AUDIT_PROBLEMS, type ChainFault, type ChainPoint } from "./chain-check.ts";
import { walkChain } from "./walk-chain.ts";

/** A head that was kept elsewhere. */
export interface KnownHead extends Pick<AuditHead, "seq" | "hash"> {
  scope?: string | undefined;
  at?: string | undefined;
  mac?: string | null | undefined;
}

export interface VerifyAuditInput {
  /** A product's id, or `platform`. */
  scope: string;
  fromSeq?: number | undefined;
  toSeq?: number | undefined;
  knownHead?: KnownHead | undefined;
}

export const AuditVerdict = z.object({
  ok: z.boolean().describe("Whether every checked row is present, unchanged and linked to the row before."),
  checked: z.int().describe("How many rows in sequence were found good."),
  headSeq: z.int().describe("The number of the chain's last row; 0 for an empty chain."),
  headHash: z
    .string()
    .describe(
      "The hash of the chain's last row; empty for an empty chain. `audit.head` gives a head to keep.",
    ),
  startSeq: z
    .int()
    .describe(
      "Retention has removed the rows up to this number; the next row links to the last of them. 0: none.",
    ),
  anchoredSeq: z
    .int()
    .describe(
      "The service vouches with a MAC for every row up to this number. Later rows could be rewritten by who can write the database.",
    ),
  firstBadSeq: z.int().optional().describe("The first row that fails. Absent: there is none."),
  problem: z.enum(AUDIT_PROBLEMS).optional().describe("What is wrong with that row. Absent: nothing is."),
  isKnownHeadChecked: z
    .boolean()
    .optional()
    .describe(
      "Whether `knownHead` was compared. false: retention has removed its row. Absent: none was given.",
    ),
});
export type AuditVerdict = z.infer<typeof AuditVerdict>;

export interface ChainVerdict extends AuditVerdict {
  scope: string;
}

/** `keyring` checks the MACs of the anchors. undefined: they are taken as they are. */
export type VerifyContext = Pick<BaseContext, "db" | "raw"> & { keyring?: MacKeyring | undefined };

/**
 * Walks the chain up to its present head. Stops at the first row that is missing, changed or not linked to the row
 * before. Rows that are appended during the walk are not checked.
 *
 * @throws INVALID_INPUT for a known head of another chain.
 */
export async function verifyAudit(ctx: VerifyContext, input: VerifyAuditInput): Promise<AuditVerdict> {
  const { scope, knownHead } = input;
  if (knownHead?.scope !== undefined && knownHead.scope !== scope) throw otherChain(knownHead.scope, scope);
  const state = await findChainState(ctx.db, scope);
  const anchors = checkAnchors(ctx.keyring, state);
  const start: ChainEnd = anchors.start ?? { seq: 0, hash: GENESIS_HASH };
  const found = await findFault(ctx, input, { state, anchors, start });
  const { head } = state;
  const verdict = {
    checked: found.checked,
    headSeq: head?.seq ?? 0,
    headHash: head?.hash ?? "",
    startSeq: start.seq,
    anchoredSeq: ctx.keyring === undefined || anchors.fault ? 0 : (anchors.head?.seq ?? 0),
    ...(knownHead !== undefined && { isKnownHeadChecked: knownHead.seq >= start.seq }),
  };
  const { fault } = found;
  if (fault === undefined) return { ok: true, ...verdict };
  return { ok: false, ...verdict, firstBadSeq: fault.seq, problem: fault.problem };
}

interface Chain {
  state: ChainState;
  anchors: CheckedAnchors;
  start: ChainEnd;
}

async function findFault(
  ctx: VerifyContext,
  { scope, knownHead, ...range }: VerifyAuditInput,
  { state, anchors, start }: Chain,
): Promise<{ checked: number; fault: ChainFault | undefined }> {
  const headSeq = state.head?.seq ?? 0;
  const points = listChainPoints({ state, anchors, start }, knownHead === undefined ? [] : [knownHead]);
  const fromSeq = Math.max(range.fromSeq ?? 1, start.seq + 1);
  const toSeq = Math.min(range.toSeq ?? headSeq, headSeq);
  const before = await findRowBefore(ctx, scope, { fromSeq, start });
  if (fromSeq <= toSeq && before === undefined) {
    return { checked: 0, fault: { seq: fromSeq, problem: "row_missing" } };
  }
  const walk = { scope, before: before ?? { seq: fromSeq - 1, hash: "" }, toSeq, points };
  const { checked, fault } = fromSeq <= toSeq ? await walkChain(ctx, walk) : { checked: 0, fault: undefined };
  const missing = headSeq === 0 ? await findMissingChain(ctx, scope) : undefined;
  const faults = [fault, missing, anchors.fault, findKnownHeadForgery(ctx.keyring, scope, knownHead)];
  // Rows beyond the head mean that the head was moved back. Only a walk to the end can tell.
  if (range.toSeq === undefined && state.lastSeq > headSeq) {
    faults.push({ seq: headSeq + 1, problem: "row_beyond_head" });
  }
  const isWalked = (seq: number) => seq >= fromSeq && seq <= toSeq;
  for (const point of points.filter(({ seq }) => !isWalked(seq))) {
    if (!(await isPointMet(ctx, scope, { point, start }))) {
      faults.push({ seq: Math.min(point.seq, headSeq + 1), problem: point.problem });
    }
  }
  return { checked, fault: toFirstFault(faults) };
}

async function findMissingChain(
  ctx: Pick<BaseContext, "raw">,
  scope: string,
): Promise<ChainFault | undefined> {
  return (await isChainExpected(ctx.raw, scope)) ? { seq: 1, problem: "chain_missing" } : undefined;
}

export function toFirstFault(faults: readonly (ChainFault | undefined)[]): ChainFault | undefined {
  return faults.filter((one) => one !== undefined).sort((a, b) => a.seq - b.seq)[0];
}

/** Rows whose hash is known from elsewhere. A known head that retention has passed says nothing any more. */
export function listChainPoints(
  { state, anchors, start }: Chain,
  knownHeads: readonly Pick<KnownHead, "seq" | "hash">[],
): ChainPoint[] {
  const { head } = state;
  const points: ChainPoint[] = knownHeads
    .filter(({ seq }) => seq >= start.seq)
    .map(({ seq, hash }) => ({ seq, hash, problem: "known_head_differs" }));
  if (head !== undefined && head.seq > 0) points.push({ ...head, problem: "head_differs" });
  if (anchors.head) points.push({ ...anchors.head, problem: "anchor_differs" });
  return points;
}

/** The row that the first checked row must link to; undefined if it is missing. */
async function findRowBefore(
  ctx: Pick<BaseContext, "raw">,
  scope: string,
  { fromSeq, start }: { fromSeq: number; start: ChainEnd },
): Promise<ChainEnd | undefined> {
  const seq = fromSeq - 1;
  if (seq === start.seq) return start;
  const hash = await findAuditHash(ctx.raw, scope, seq);
  return hash === undefined ? undefined : { seq, hash };
}

async function isPointMet(
  ctx: Pick<BaseContext, "raw">,
  scope: string,
  { point, start }: { point: ChainPoint; start: ChainEnd },
): Promise<boolean> {
  if (point.seq <= start.seq) return point.seq < start.seq || point.hash === start.hash;
  return (await findAuditHash(ctx.raw, scope, point.seq)) === point.hash;
}

/** A kept head has a MAC if the service could vouch for it. Without its instant, the MAC cannot be checked. */
export function findKnownHeadForgery(
  keyring: MacKeyring | undefined,
  scope: string,
  known: KnownHead | undefined,
): ChainFault | undefined {
  if (keyring === undefined || typeof known?.mac !== "string" || known.at === undefined) return undefined;
  const { seq, hash, at, mac } = known;
  const problem = findMacProblem(keyring, { kind: "known", scope, seq, hash, at }, mac);
  return problem && { seq, problem };
}

function otherChain(given: string, scope: string): DomainError {
  const message = `the known head is of the chain "${given}", and this call is about "${scope}": give a head of this chain`;
  return new DomainError("INVALID_INPUT", message, { issues: [{ path: "knownHead.scope", message }] });
}
