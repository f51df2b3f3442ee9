import { findTurn, type TurnKey } from "../../../db/turns.ts";
import { toTurn, turnNotFound, type Turn } from "../model/turn-view.ts";
import type { TurnContext } from "../turn-context.ts";

/** Throws TURN_NOT_FOUND, also for a turn of another product. */
export async function getTurn(
  ctx: Pick<TurnContext, "raw" | "turns" | "seals">,
  input: TurnKey,
): Promise<Turn> {
  const row = await findTurn(ctx.raw, input);
  if (row === undefined) throw turnNotFound();
  return toTurn(ctx.turns, row, await ctx.seals.readEnd(row));
}
