import type { BusyTask } from "../../engine-contract/execute-refusal.ts";
import type { HeldEngine } from "../../engines/access/hold-engine.ts";
import { toErrorMessage } from "../../errors.ts";
import type { LiveTurnInput } from "../model/live-turn.ts";
import { findLeftTurn, type LeftTurn } from "./find-left-turn.ts";
import type { RunContext } from "./run-context.ts";

type BusyContext = Pick<RunContext, "clock" | "lingeringHolds" | "raw" | "log">;

const MIN_RETRY_MS = 1_000;
const MAX_RETRY_MS = 15_000;
const HOW_TO_END = "start again after retryAfterMs; a restart of the engine ends its turn at once";

/** Why an engine refuses a task as busy. The longer a turn has continued without us, the longer the advised wait. */
export async function explainBusyTask(
  ctx: BusyContext,
  { engineId, generation }: Pick<HeldEngine, "engineId" | "generation">,
  turn: LiveTurnInput,
): Promise<BusyTask> {
  const { turnId, taskId } = turn;
  const task = { ...turn, engineId, generation, exceptTurnId: turnId };
  const left = ctx.lingeringHolds.find(engineId, taskId) ?? (await findRecorded(ctx, task));
  if (left === undefined) {
    const message = `the engine has a turn of this task that this service does not read: ${HOW_TO_END}`;
    return { message, retryAfterMs: MIN_RETRY_MS };
  }
  const sinceMs = Math.max(0, ctx.clock.now() - left.endedAt);
  const name = `turn ${left.turnId} of this task, which ended here ${Math.round(sinceMs / 1_000)} s ago (${left.reason})`;
  if (left.reason === "AWAITING_HUMAN") {
    const message =
      `the engine waits for a person's answer to ${name}: ` +
      "send the answer to turns.respond with userId and taskId, or cancel that turn, then start again";
    return { message, retryAfterMs: MAX_RETRY_MS };
  }
  const message = `the engine still works on ${name}; it does not say for how long: cancel that turn, or ${HOW_TO_END}`;
  return { message, retryAfterMs: Math.min(Math.max(sinceMs, MIN_RETRY_MS), MAX_RETRY_MS) };
}

/** The hold of such a turn may have passed, or may be another replica's. */
async function findRecorded(
  ctx: BusyContext,
  task: Parameters<typeof findLeftTurn>[1],
): Promise<LeftTurn | undefined> {
  try {
    return await findLeftTurn(ctx, task);
  } catch (error) {
    // The refusal stands without the name of the turn.
    ctx.log.debug({ error: toErrorMessage(error) }, "the turn that keeps a task busy could not be looked up");
    return undefined;
  }
}
