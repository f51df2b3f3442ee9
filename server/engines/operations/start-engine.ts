import type { OperationContext } from "./operation-context.ts";
import type { EngineRow } from "../../../db/engines.ts";
import { engineDestroying } from "../model/absent-engine-errors.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import type { DesiredStateChange, OperationInput } from "./record-desired-state.ts";
import { desireBoot } from "./desire-boot.ts";
import { requireRunning } from "./require-running.ts";
import { runOperation } from "./run-operation.ts";

export interface StartEngineInput extends OperationInput {
  /** How long to wait for the boot, in milliseconds. undefined: until it has ended. */
  deadlineMs?: number | undefined;
}

/** Succeeds at once if the engine runs. A new boot has a fresh restart budget. */
export async function startEngine(ctx: OperationContext, input: StartEngineInput): Promise<Engine> {
  return runOperation(ctx, input, {
    action: "engine.start_requested",
    reconcileDeadlineMs: input.deadlineMs,
    desire: desireStart,
    answer: async (row) => {
      await requireRunning(row, input.idempotency);
      return toEngine(ctx, row);
    },
  });
}

function desireStart(row: EngineRow): DesiredStateChange | undefined {
  switch (row.status) {
    case "provisioning":
    case "starting":
    case "running":
      return undefined;
    case "stopping":
    case "stopped":
    case "sleeping":
    case "failed":
      return desireBoot(row);
    case "destroying":
      throw engineDestroying();
  }
}
