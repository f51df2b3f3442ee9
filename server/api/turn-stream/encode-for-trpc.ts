import type { TrackedEnvelope } from "@trpc/server";
import type { TurnBatch, TurnEvent } from "../../turns/read/turn-batch.ts";

/** What a subscriber gets at once. Its id in the stream is the sequence number of its last event, gap or end. */
export interface TurnItem extends Omit<TurnBatch, "lastSeq" | "events"> {
  turnId: string;
  events: readonly TurnEvent[];
}

/** Encodes a batch for `streamTurn` as an item of a tRPC subscription. Events keep the text that their engine sent. */
export function encodeForTrpc(
  turnId: string,
  _afterSeq: number,
  { events, gap, end, lastSeq }: TurnBatch,
): string {
  const rest = (gap ? `,"gap":${JSON.stringify(gap)}` : "") + (end ? `,"end":${JSON.stringify(end)}` : "");
  const json = `{"turnId":${JSON.stringify(turnId)},"events":[${events.join(",")}]${rest}}`;
  // tRPC's handler, too, ends an item with three newlines.
  return `data: ${json}\nid: ${lastSeq}\n\n\n`;
}

/** The type that tRPC's client derives for a subscription to these texts: what its link makes of them. */
export function toTrpcItems(
  texts: AsyncGenerator<string, void, undefined>,
): AsyncGenerator<TrackedEnvelope<TurnItem>, void, undefined> {
  return texts as unknown as AsyncGenerator<TrackedEnvelope<TurnItem>, void, undefined>;
}
