import type { TurnBatch } from "../../turns/read/turn-batch.ts";

/** What a reader gets at a time, under the id of its last item. */
export interface TurnItem extends Omit<TurnBatch, "lastSeq"> {
  turnId: string;
}
