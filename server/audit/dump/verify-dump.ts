import type { AnchorRow, ChainEnd } from "../../../db/audit-anchors.ts";
import type { AuditLogRow } from "../../../db/audit-log.ts";
import { checkAnchors, type MacKeyring } from "../audit-anchor.ts";
import type { AuditHead } from "../audit-head.ts";
import { GENESIS_HASH, toAuditHash } from "../audit-row.ts";
import { ChainCheck, type ChainFault, type CheckedLink } from "../chain-check.ts";
import { findKnownHeadForgery, listChainPoints, toFirstFault, type ChainVerdict } from "../verify-audit.ts";
import { readDump, type DumpedRow } from "./read-dump.ts";
import { WaitingRows } from "./waiting-rows.ts";

export interface VerifyDumpInput {
  chunks: AsyncIterable<Buffer>;
  /** undefined: MACs are not checked. */
  keyring: MacKeyring | undefined;
  /** Heads that were kept elsewhere. */
  knownHeads: readonly Pick<AuditHead, "scope" | "seq" | "hash">[];
}

/**
 * Checks every chain in a dump, without a database. Needs a constant amount of memory for each chain, however many rows
 * it has.
 *
 * @throws if the dump cannot be read to its end, or has no audit log.
 */
export async function verifyDump(input: VerifyDumpInput): Promise<ChainVerdict[]> {
  using chains = new DumpedChains(input);
  for await (const rows of readDump(input.chunks)) for (const row of rows) chains.accept(row);
  return chains.end();
}

interface DumpedChain {
  check: ChainCheck;
  start: ChainEnd;
  anchorFault: ChainFault | undefined;
  anchoredSeq: number;
  /** A seq that came twice. */
  twice: number | undefined;
}

class DumpedChains implements Disposable {
  readonly #input: VerifyDumpInput;
  readonly #heads = new Map<string, ChainEnd>();
  readonly #anchors = new Map<string, AnchorRow[]>();
  readonly #chains = new Map<string, DumpedChain>();
  readonly #waiting = new WaitingRows();

  constructor(input: VerifyDumpInput) {
    this.#input = input;
  }

  accept(dumped: DumpedRow): void {
    if (dumped.table === "audit_log") {
      this.#acceptRow(dumped.row);
      return;
    }
    // pg_dump sorts tables by name. So heads and anchors are known before the first row.
    if (this.#chains.size > 0)
      throw new Error(`${dumped.table} comes after audit_log: make the dump with pg_dump`);
    const { scope } = dumped.row;
    if (dumped.table === "audit_heads") this.#heads.set(scope, dumped.row);
    else this.#anchors.set(scope, [...(this.#anchors.get(scope) ?? []), dumped.row]);
  }

  #acceptRow(row: AuditLogRow): void {
    const { scope, seq, prevHash, hash } = row;
    const chain = this.#open(scope);
    const { last, fault } = chain.check;
    // An interrupted pass of the retention leaves rows that its anchor covers already.
    if (fault !== undefined || seq <= chain.start.seq) return;
    const link = { seq, prevHash, hash, isIntact: hash === toAuditHash(row) };
    if (seq === last.seq + 1) this.#follow(scope, chain, link);
    else if (seq <= last.seq || !this.#waiting.add(scope, link)) chain.twice ??= seq;
  }

  #follow(scope: string, { check }: DumpedChain, first: CheckedLink): void {
    let link: CheckedLink | undefined = first;
    while (link !== undefined && check.fault === undefined) {
      check.accept(link);
      link = this.#waiting.take(scope, check.last.seq + 1);
    }
  }

  #open(scope: string): DumpedChain {
    const known = this.#chains.get(scope);
    if (known !== undefined) return known;
    const head = this.#heads.get(scope);
    const state = { head, lastSeq: 0, anchors: this.#anchors.get(scope) ?? [] };
    const anchors = checkAnchors(this.#input.keyring, state);
    const start = anchors.start ?? { seq: 0, hash: GENESIS_HASH };
    const points = listChainPoints({ state, anchors, start }, this.#knownHeadsOf(scope));
    const isVouchedFor = this.#input.keyring !== undefined && anchors.fault === undefined;
    const chain: DumpedChain = {
      check: new ChainCheck(start, points),
      start,
      anchorFault: anchors.fault,
      anchoredSeq: isVouchedFor ? (anchors.head?.seq ?? 0) : 0,
      twice: undefined,
    };
    this.#chains.set(scope, chain);
    return chain;
  }

  #knownHeadsOf(scope: string) {
    return this.#input.knownHeads.filter((known) => known.scope === scope);
  }

  end(): ChainVerdict[] {
    const known = this.#input.knownHeads.map(({ scope }) => scope);
    const scopes = new Set([
      ...this.#heads.keys(),
      ...this.#anchors.keys(),
      ...this.#chains.keys(),
      ...known,
    ]);
    if (this.#heads.size === 0 && this.#chains.size === 0) {
      throw new Error(
        "the dump has no rows of audit_heads or audit_log: dump them with pg_dump, without --inserts",
      );
    }
    return [...scopes].sort().map((scope) => this.#toVerdict(scope));
  }

  #toVerdict(scope: string): ChainVerdict {
    const { check, start, anchorFault, anchoredSeq, twice } = this.#open(scope);
    const head = this.#heads.get(scope);
    const headSeq = head?.seq ?? 0;
    const faults: (ChainFault | undefined)[] = [check.end(headSeq), anchorFault];
    for (const known of this.#knownHeadsOf(scope)) {
      faults.push(findKnownHeadForgery(this.#input.keyring, scope, known));
      if (known.seq === start.seq && known.hash !== start.hash) {
        faults.push({ seq: known.seq, problem: "known_head_differs" });
      }
    }
    if (check.last.seq > headSeq || (check.last.seq === headSeq && this.#waiting.count(scope) > 0)) {
      faults.push({ seq: headSeq + 1, problem: "row_beyond_head" });
    }
    if (twice !== undefined) faults.push({ seq: twice, problem: "row_not_linked" });
    const first = toFirstFault(faults);
    return {
      scope,
      ok: first === undefined,
      checked: check.checked,
      headSeq,
      headHash: head?.hash ?? "",
      startSeq: start.seq,
      anchoredSeq,
      ...(first && { firstBadSeq: first.seq, problem: first.problem }),
    };
  }

  [Symbol.dispose](): void {
    this.#waiting[Symbol.dispose]();
  }
}
