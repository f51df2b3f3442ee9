import type { OperationContext } from "./operation-context.ts";
import type { EngineRow } from "../../../db/engines.ts";
import { engineDestroying } from "../model/engine-not-found.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import type { DesiredStateChange, OperationInput } from "./record-desired-state.ts";
import { desireBoot, requireRunning } from "./require-running.ts";
import { runOperation } from "./run-operation.ts";

export interface StartEngineInput extends OperationInput {
  /** How long to wait for the boot, in milliseconds. undefined: until it has ended. */
  deadlineMs?: number | undefined;
}

/** Already running is success. A new boot comes with a fresh restart budget. */
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
