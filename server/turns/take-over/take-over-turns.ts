import { endUnnumberedTurns, takeOverTurnRows, type LostOwners } from "../../../db/turns.ts";
import { FairSlots } from "../../time/fair-slots.ts";
import { toLostOwnerEnd } from "./lost-owner-end.ts";
import { SharedObservations } from "./shared-observations.ts";
import { runTakenTurn, type TakeOverContext } from "./run-taken-turn.ts";

/** Attempts to attach to an engine at the same time. An engine that hangs delays only so many others. */
const ATTACH_AT_ONCE = 64;

/**
 * Takes over the live turns of dead replicas, and returns how many. They are live on this replica by then, so that their
 * readers find them; their engines are asked in the background. Turns of engines that do not number their events end
 * at once, with a seq above every seq that a reader may have.
 */
export async function takeOverTurns(
  ctx: TakeOverContext,
  dead: LostOwners["dead"],
): Promise<{ taken: number; ended: number }> {
  const owners = { me: ctx.replica.id, dead };
  const end = toLostOwnerEnd("streaming", "its engine does not number its events");
  const ended = await endUnnumberedTurns(ctx.raw, owners, { status: end.status, end: JSON.stringify(end) });
  const rows = await takeOverTurnRows(ctx.raw, owners);
  const slots = new FairSlots(ATTACH_AT_ONCE);
  const observer = new SharedObservations(ctx.reconciler);
  for (const row of rows) {
    const turn = ctx.turns.takeOver(row);
    turn.markTakenOver(row, ctx.clock.now());
    void runTakenTurn(ctx, { turn, row, slots, observer });
  }
  const counts = { taken: rows.length, ended };
  if (counts.taken + counts.ended > 0)
    ctx.log.info(counts, "turns of dead replicas were taken over or ended");
  return counts;
}
