import type { ChainEnd } from "../../db/audit-anchors.ts";

/** What can be wrong with a chain. */
export const AUDIT_PROBLEMS = [
  "chain_missing",
  "row_missing",
  "row_changed",
  "row_not_linked",
  "row_beyond_head",
  "head_differs",
  "anchor_forged",
  "anchor_key_missing",
  "anchor_differs",
  "known_head_forged",
  "known_head_differs",
] as const;
export type AuditProblem = (typeof AUDIT_PROBLEMS)[number];

/** A row of this seq must have this hash. */
export interface ChainPoint extends ChainEnd {
  /** What it means if the row has another hash, or is missing. */
  problem: AuditProblem;
}

export interface ChainFault {
  seq: number;
  problem: AuditProblem;
}

export interface CheckedLink extends ChainEnd {
  prevHash: string;
  /** The hash is that of the row's fields. */
  isIntact: boolean;
}

/** Follows a chain row by row, from the row after `before`. It has a constant size, however long the chain is. */
export class ChainCheck {
  #last: ChainEnd;
  readonly #points: readonly ChainPoint[];
  #nextPoint = 0;
  #fault: ChainFault | undefined;
  #checked = 0;

  constructor(before: ChainEnd, points: readonly ChainPoint[]) {
    this.#last = before;
    this.#points = points.filter(({ seq }) => seq > before.seq).sort((a, b) => a.seq - b.seq);
  }

  /** The last row that was found good. */
  get last(): ChainEnd {
    return this.#last;
  }

  get checked(): number {
    return this.#checked;
  }

  /** The first fault. Nothing after it is checked. */
  get fault(): ChainFault | undefined {
    return this.#fault;
  }

  accept(link: CheckedLink): void {
    if (this.#fault !== undefined) return;
    const seq = this.#last.seq + 1;
    const problem = this.#findProblem(link, seq);
    if (problem !== undefined) {
      this.#fault = { seq, problem };
      return;
    }
    this.#last = { seq, hash: link.hash };
    this.#checked += 1;
  }

  /** No row follows. A chain that should reach `toSeq` has lost its tail; a point beyond that row fails too. */
  end(toSeq: number): ChainFault | undefined {
    if (this.#fault !== undefined) return this.#fault;
    const seq = this.#last.seq + 1;
    if (this.#last.seq < toSeq) return (this.#fault = { seq, problem: "row_missing" });
    const point = this.#points[this.#nextPoint];
    return point === undefined ? undefined : (this.#fault = { seq, problem: point.problem });
  }

  #findProblem(link: CheckedLink, seq: number): AuditProblem | undefined {
    if (link.seq !== seq) return "row_missing";
    if (!link.isIntact) return "row_changed";
    if (link.prevHash !== this.#last.hash) return "row_not_linked";
    for (;;) {
      const point = this.#points[this.#nextPoint];
      if (point === undefined || point.seq > seq) return undefined;
      if (point.hash !== link.hash) return point.problem;
      this.#nextPoint += 1;
    }
  }
}
