import { tracked, type TrackedEnvelope } from "@trpc/server";
import type { TurnBatch } from "../../turns/read/turn-batch.ts";

/** What a subscriber gets at once. Its id in the stream is the sequence number of its last event, gap or end. */
export interface TurnItem extends Omit<TurnBatch, "lastSeq"> {
  turnId: string;
}

/** Encodes a batch for `streamTurn` as an item of a tRPC subscription. */
export function encodeForTrpc(turnId: string, { lastSeq, ...batch }: TurnBatch): TrackedEnvelope<TurnItem> {
  return tracked(String(lastSeq), { turnId, ...batch });
}
