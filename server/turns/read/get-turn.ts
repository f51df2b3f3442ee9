import { findTurn, type TurnKey } from "../../../db/turns.ts";
import type { TurnContext } from "../turn-registry.ts";
import { toTurn, turnNotFound, type Turn } from "../model/turn-view.ts";

/** Throws TURN_NOT_FOUND, also for another product's. */
export async function getTurn(ctx: TurnContext, input: TurnKey): Promise<Turn> {
  const row = await findTurn(ctx.raw, input);
  if (row === undefined) throw turnNotFound();
  return toTurn(ctx.turns, row);
}
