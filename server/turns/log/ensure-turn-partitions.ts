import { ensureTurnPartitionsAhead } from "../../../db/turn-partitions.ts";
import type { BaseContext } from "../../context.ts";

const HOURS_AHEAD = 2;

/** Makes the log's partitions for now and the next hours. The turn log makes a missing one when it needs it. */
export async function ensureTurnPartitions(ctx: Pick<BaseContext, "raw">): Promise<void> {
  await ensureTurnPartitionsAhead(ctx.raw, HOURS_AHEAD);
}
