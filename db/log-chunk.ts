/** One row of the log. */
export interface LogChunk {
  firstSeq: number;
  lastSeq: number;
  /** A JSON array of events. */
  events: string;
}

/** One row of the log as it is stored. Either `events` or `sealed` is null. */
export interface StoredChunk extends Omit<LogChunk, "events"> {
  events: string | null;
  /** Sealed events; see `turn-seals.ts`. */
  sealed: Buffer | null;
}
