import type { TurnEnd } from "../model/turn-end.ts";

/** An event as its reader parses it. The service keeps only its text, because parsing would change numbers. */
export interface TurnEvent {
  /** From 1, without gaps. */
  seq: number;
  /** ISO instant of its arrival from the engine. */
  at: string;
  type: string;
  /** As the engine sent it; a string when that is not JSON. */
  data: unknown;
}

export const GAP_REASONS = ["retention", "lost", "unknown_cursor"] as const;

/** Sequence numbers that a reader cannot have, both ends included. */
export interface TurnGap {
  fromSeq: number;
  toSeq: number;
  reason: (typeof GAP_REASONS)[number];
}

/** What a reader gets at once: first the gap, then the events, then the end. */
export interface TurnBatch {
  /** The cursor after this batch, with its gap and its end. */
  lastSeq: number;
  /** Each is the JSON text of a TurnEvent, on one line. */
  events: readonly string[];
  gap?: TurnGap;
  end?: TurnEnd;
}

/** A batch holds no more than this, unless a single event is larger. */
export const BATCH_MAX_EVENTS = 256;
export const BATCH_MAX_BYTES = 64 * 1024;
