import type { LogChunk } from "../../../db/turn-events.ts";
import { BATCH_MAX_BYTES, BATCH_MAX_EVENTS, type TurnBatch, type TurnEvent } from "../read/turn-batch.ts";

/**
 * Rows of the log as batches for a reader that has everything up to `cursor`. Small rows share a batch. Sequence
 * numbers that are missing between two rows become a gap.
 */
export function toBatches(chunks: readonly LogChunk[], cursor: number): TurnBatch[] {
  const batches: TurnBatch[] = [];
  let events: TurnEvent[] = [];
  let bytes = 0;
  let lastSeq = cursor;
  const close = () => {
    if (events.length > 0) batches.push({ lastSeq, events });
    events = [];
    bytes = 0;
  };
  for (const chunk of chunks) {
    const fresh = (JSON.parse(chunk.events) as TurnEvent[]).filter((event) => event.seq > lastSeq);
    const first = fresh[0];
    if (first === undefined) continue;
    const isFull =
      events.length + fresh.length > BATCH_MAX_EVENTS || bytes + chunk.events.length > BATCH_MAX_BYTES;
    if (isFull || first.seq > lastSeq + 1) close();
    if (first.seq > lastSeq + 1) {
      const toSeq = first.seq - 1;
      batches.push({ lastSeq: toSeq, events: [], gap: { fromSeq: lastSeq + 1, toSeq, reason: "lost" } });
    }
    events.push(...fresh);
    bytes += chunk.events.length;
    lastSeq = chunk.lastSeq;
  }
  close();
  return batches;
}
