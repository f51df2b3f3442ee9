import type { TurnEnd } from "../model/turn-end.ts";

export interface TurnEvent {
  /** From 1, without holes. */
  seq: number;
  /** ISO instant at which it came from the engine. */
  at: string;
  type: string;
  /** As the engine sent it; a string when it was not JSON. */
  data: unknown;
}

export const GAP_REASONS = ["retention", "lost", "unknown_cursor"] as const;

/** Sequence numbers that will not be delivered, both ends included. */
export interface TurnGap {
  fromSeq: number;
  toSeq: number;
  reason: (typeof GAP_REASONS)[number];
}

/** What a reader gets at a time: first what is missing, then events, then the end. */
export interface TurnBatch {
  /** Of the last item in here, gap and end included: the cursor to read on from. */
  lastSeq: number;
  events: readonly TurnEvent[];
  gap?: TurnGap;
  end?: TurnEnd;
}

/** A batch holds no more than this, unless a single event is larger. */
export const BATCH_MAX_EVENTS = 256;
export const BATCH_MAX_BYTES = 256 * 1024;
