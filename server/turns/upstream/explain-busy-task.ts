import type { BusyTask } from "../../engine-contract/execute-refusal.ts";
import type { HeldEngine } from "../../engines/access/hold-engine.ts";
import type { RunContext } from "./run-context.ts";

const MIN_RETRY_MS = 1_000;
const MAX_RETRY_MS = 15_000;
const HOW_TO_END = "start again after retryAfterMs; a restart of the engine ends its turn at once";

/** Why an engine refuses a task as busy. The longer a turn has continued without us, the longer the advised wait. */
export function explainBusyTask(
  { clock, lingeringHolds }: Pick<RunContext, "clock" | "lingeringHolds">,
  { engineId }: Pick<HeldEngine, "engineId">,
  taskId: string,
): BusyTask {
  const ended = lingeringHolds.find(engineId, taskId);
  if (ended === undefined) {
    const message = `the engine has a turn of this task that this service does not read: ${HOW_TO_END}`;
    return { message, retryAfterMs: MIN_RETRY_MS };
  }
  const sinceMs = clock.now() - ended.endedAt;
  const turn = `turn ${ended.turnId} of this task, which ended here ${Math.round(sinceMs / 1_000)} s ago (${ended.reason})`;
  const message = `the engine still works on ${turn}; it does not say for how long: ${HOW_TO_END}`;
  return { message, retryAfterMs: Math.min(Math.max(sinceMs, MIN_RETRY_MS), MAX_RETRY_MS) };
}
