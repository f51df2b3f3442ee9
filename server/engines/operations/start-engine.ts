import type { OperationContext } from "./operation-context.ts";
import { orchNow, type EngineRow } from "../../../db/engines.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import { BOOT_PATCH } from "../reconcile/record-move.ts";
import { engineDestroying } from "./get-engine.ts";
import type { DesiredStateChange, OperationInput } from "./record-desired-state.ts";
import { requireFirstBoot, requireRunning } from "./require-running.ts";
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
  const patch = {
    ...BOOT_PATCH,
    desired: "running",
    desiredBy: "caller",
    restartAttempts: 0,
    nextCheckAt: orchNow,
  } as const;
  switch (row.status) {
    case "provisioning":
    case "starting":
    case "running":
      return undefined;
    case "stopping":
    case "stopped":
    case "sleeping":
      return { patch, move: "boot" };
    case "failed":
      requireFirstBoot(row);
      return { patch, move: "boot" };
    case "destroying":
      throw engineDestroying();
  }
}
