import { tracked, type TrackedEnvelope } from "@trpc/server";
import type { TurnBatch, TurnEvent } from "../../turns/read/turn-batch.ts";

/** What a subscriber gets at once. Its id in the stream is the sequence number of its last event, gap or end. */
export interface TurnItem extends Omit<TurnBatch, "lastSeq" | "events"> {
  turnId: string;
  events: readonly TurnEvent[];
}

/**
 * Encodes a batch for `streamTurn` as an item of a tRPC subscription. The item's type is what its reader parses. Here it
 * is JSON text, which `serveSubscription` sends as it is: events keep the text that their engine sent.
 */
export function encodeForTrpc(turnId: string, batch: TurnBatch): TrackedEnvelope<TurnItem> {
  return tracked(String(batch.lastSeq), toItemText(turnId, batch) as unknown as TurnItem);
}

function toItemText(turnId: string, { events, gap, end }: TurnBatch): string {
  const rest = (gap ? `,"gap":${JSON.stringify(gap)}` : "") + (end ? `,"end":${JSON.stringify(end)}` : "");
  return `{"turnId":${JSON.stringify(turnId)},"events":[${events.join(",")}]${rest}}`;
}
