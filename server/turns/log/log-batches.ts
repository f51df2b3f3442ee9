import type { LogChunk } from "../../../db/turn-events.ts";
import { splitArray } from "../../json/json-text.ts";
import { BATCH_MAX_BYTES, BATCH_MAX_EVENTS, type TurnBatch } from "../read/turn-batch.ts";

/**
 * Rows of the log as batches for a reader that has everything up to `cursor`. Small rows share a batch. Sequence
 * numbers that are missing between two rows become a gap.
 */
export function toBatches(chunks: readonly LogChunk[], cursor: number): TurnBatch[] {
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
    const fresh = toLines(chunk).slice(firstSeq - chunk.firstSeq);
    const isFull =
      events.length + fresh.length > BATCH_MAX_EVENTS || bytes + chunk.events.length > BATCH_MAX_BYTES;
    if (isFull || firstSeq > lastSeq + 1) close();
    if (firstSeq > lastSeq + 1) {
      const toSeq = firstSeq - 1;
      batches.push({ lastSeq: toSeq, events: [], gap: { fromSeq: lastSeq + 1, toSeq, reason: "lost" } });
    }
    events.push(...fresh);
    bytes += chunk.events.length;
    lastSeq = chunk.lastSeq;
  }
  close();
  return batches;
}

function toLines({ events }: LogChunk): string[] {
  // Rows of earlier versions may have line breaks in the white space of an event's data.
  return splitArray(events.includes("\n") ? events.replaceAll("\n", " ") : events);
}
