import { createHash } from "node:crypto";

/** What one reader got of one turn, or what an engine sent of it. Events are kept as digests, in their order. */
export class Tally {
  readonly digests: string[] = [];
  lost = 0;
  doubled = 0;
  gaps = 0;
  readonly ends: string[] = [];
  /** Why the reader gave up; undefined: it did not. */
  trouble: string | undefined;
  #lastSeq = 0;

  event(seq: number, type: string, data: unknown): void {
    if (this.ends.length > 0 || seq <= this.#lastSeq) {
      this.doubled += 1;
      return;
    }
    this.lost += seq - this.#lastSeq - 1;
    this.#lastSeq = seq;
    this.digests.push(toDigest(type, data));
  }

  /** A typed gap is no silent loss. Whether it is allowed depends on the end. */
  gap(toSeq: number): void {
    this.gaps += 1;
    this.#lastSeq = Math.max(this.#lastSeq, toSeq);
  }

  end({ status, reason }: { status: string; reason: string | null }): void {
    this.ends.push(reason === null ? status : `${status} (${reason})`);
  }

  get hasEnded(): boolean {
    return this.ends.length > 0;
  }
  get lastSeq(): number {
    return this.#lastSeq;
  }
}

/** The replay of the reference engine adds these fields to each event. */
const ADDED = new Set(["task_id", "turn_id", "at"]);

export function toDigest(type: string, data: unknown): string {
  const fields = Object.entries(data as object).filter(([name]) => !ADDED.has(name));
  return createHash("sha1")
    .update(`${type} ${JSON.stringify(fields)}`)
    .digest("base64");
}
