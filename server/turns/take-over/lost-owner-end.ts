import type { TurnStatus } from "../../../db/turns.ts";
import { toEndCause, type EndCause } from "../model/turn-end.ts";

/**
 * The end of a turn that was in this status when its owner died, and that no replica can read on. It is unknown whether
 * the engine has a turn in `starting`. `isGone`: the engine's process has ended.
 */
export function toLostOwnerEnd(status: TurnStatus, why: string, isGone = false): EndCause {
  const engineMayContinue = !isGone;
  if (status === "starting") {
    const message = `the replica stopped while it started the turn; whether the engine has it is unknown: ${why}`;
    return toEndCause("failed", "OUTCOME_UNKNOWN", { message, engineMayContinue });
  }
  const message = `the replica stopped while it read the turn, and no other can read it on: ${why}`;
  return toEndCause("interrupted", "OWNER_LOST", { message, engineMayContinue });
}
