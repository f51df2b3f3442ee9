import type { LogChunk } from "../../../db/log-chunk.ts";
import { splitArray } from "../../json/json-text.ts";
import { BATCH_MAX_BYTES, BATCH_MAX_EVENTS, type TurnBatch } from "../read/turn-batch.ts";

/** One row of the log as readers can have it. */
export interface ReadChunk extends Omit<LogChunk, "events"> {
  /** null: the events are lost, because their row cannot be opened. */
  events: string | null;
}

/**
 * Rows of the log as batches for a reader that has everything up to `cursor`. Small rows share a batch. Sequence
 * numbers that are missing between two rows become a gap, and so do lost events.
 */
export function toBatches(chunks: readonly ReadChunk[], cursor: number): TurnBatch[] {
  const batches: TurnBatch[] = [];
  let events: string[] = [];
  let bytes = 0;
  let lastSeq = cursor;
  const close = () => {
    if (events.length > 0) batches.push({ lastSeq, events });
    events = [];
    bytes = 0;
  };
  for (const chunk of chunks) {
    if (chunk.lastSeq <= lastSeq) continue;
    const firstSeq = Math.max(chunk.firstSeq, lastSeq + 1);
    const lostSeq = chunk.events === null ? chunk.lastSeq : firstSeq - 1;
    if (lostSeq > lastSeq) {
      close();
      batches.push(toLost(batches, lastSeq + 1, lostSeq));
    }
    if (chunk.events === null) {
      lastSeq = chunk.lastSeq;
      continue;
    }
    const fresh = toLines(chunk.events).slice(firstSeq - chunk.firstSeq);
    const isFull =
      events.length + fresh.length > BATCH_MAX_EVENTS || bytes + chunk.events.length > BATCH_MAX_BYTES;
    if (isFull) close();
    events.push(...fresh);
    bytes += chunk.events.length;
    lastSeq = chunk.lastSeq;
  }
  close();
  return batches;
}

/** A gap. It takes the place of a gap that ends just before it. */
function toLost(batches: TurnBatch[], fromSeq: number, toSeq: number): TurnBatch {
  const before = batches.at(-1)?.gap;
  const isNext = before?.toSeq === fromSeq - 1;
  if (isNext) batches.pop();
  return {
    lastSeq: toSeq,
    events: [],
    gap: { fromSeq: isNext ? before.fromSeq : fromSeq, toSeq, reason: "lost" },
  };
}

function toLines(events: string): string[] {
  // Rows of earlier versions may have line breaks in the white space of an event's data.
  return splitArray(events.includes("\n") ? events.replaceAll("\n", " ") : events);
}
