import { endTurnsOfOthers } from "../../../db/turns.ts";
import type { BaseContext } from "../../context.ts";
import type { Replica } from "../../replicas/replica.ts";

type RecoverContext = Pick<BaseContext, "raw" | "log"> & { replica: Pick<Replica, "id"> };

/**
 * Ends the turns of owners that are gone, past anything that they may have shown, and answers how many there were.
 * A turn that was starting ends `failed`, because nobody knows whether its engine has it; others `interrupted`.
 */
export async function recoverTurns(
  ctx: RecoverContext,
  deadReplicas: readonly string[] | "all but me",
): Promise<number> {
  const me = ctx.replica.id;
  const count = await endTurnsOfOthers(ctx.raw, me, deadReplicas === "all but me" ? undefined : deadReplicas);
  if (count > 0) ctx.log.info({ turns: count }, "turns of replicas that are gone were ended");
  return count;
}
