import { ensureTurnPartitionsAhead } from "../../../db/turn-partitions.ts";
import type { TurnContext } from "../turn-registry.ts";

const HOURS_AHEAD = 2;

/** Makes the log's partitions for now and the next hours. One that is missing all the same is made when it is needed. */
export async function ensureTurnPartitions(ctx: Pick<TurnContext, "raw">): Promise<void> {
  await ensureTurnPartitionsAhead(ctx.raw, HOURS_AHEAD);
}
