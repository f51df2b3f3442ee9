import { endTurnsOfOthers } from "../../../db/turns.ts";
import type { TurnContext } from "../turn-context.ts";

/**
 * Ends the turns of dead replicas, with a seq above every seq that a reader may have, and returns how many. A turn in `starting`
 * ends `failed`, because it is unknown whether its engine has it. All others end `interrupted`.
 */
export async function recoverTurns(
  ctx: Pick<TurnContext, "raw" | "log" | "replica">,
  deadReplicas: readonly string[] | "all but me",
): Promise<number> {
  const me = ctx.replica.id;
  const count = await endTurnsOfOthers(ctx.raw, me, deadReplicas === "all but me" ? undefined : deadReplicas);
  if (count > 0) ctx.log.info({ turns: count }, "turns of dead replicas were ended");
  return count;
}
