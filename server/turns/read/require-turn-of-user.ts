import { findTurn, type TurnKey } from "../../../db/turns.ts";
import { turnNotFound } from "../model/turn-view.ts";
import type { FollowContext } from "./follow-turn.ts";

/** Throws TURN_NOT_FOUND for a turn of another user, as for a turn that does not exist. */
export async function requireTurnOfUser(
  ctx: Pick<FollowContext, "raw" | "turns" | "lease">,
  { userId, ...key }: TurnKey & { userId: string },
): Promise<void> {
  const live = ctx.turns.find(key.productId, key.turnId);
  // A start without a row may be another input for a turn that is on record.
  const isLive = live?.record !== undefined;
  const owner = isLive
    ? live.input.userId
    : (await ctx.lease.run(async () => findTurn(ctx.raw, key)))?.userId;
  if (owner !== userId) throw turnNotFound();
}
