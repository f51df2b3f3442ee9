import type { OperationContext } from "./operation-context.ts";
import { orchNow, type EngineRow } from "../../../db/engines.ts";
import { DomainError } from "../../errors.ts";
import type { WhenBusy } from "../access/engine-holds.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import { BOOT_PATCH } from "../reconcile/record-move.ts";
import { engineDestroying } from "./get-engine.ts";
import type { DesiredStateChange, OperationInput } from "./record-desired-state.ts";
import { requireFirstBoot, requireRunning } from "./require-running.ts";
import { runOperation } from "./run-operation.ts";

export interface RestartEngineInput extends OperationInput {
  whenBusy: WhenBusy;
  /** How long `wait` waits for the engine's holds, in milliseconds. */
  deadlineMs: number;
}

/** Ends the process on record and starts another one: the generation moves. */
export async function restartEngine(ctx: OperationContext, input: RestartEngineInput): Promise<Engine> {
  const { whenBusy, deadlineMs } = input;
  return runOperation(ctx, input, {
    action: "engine.restart_requested",
    gate: { whenBusy, deadlineMs, reason: "ENGINE_RESTARTED" },
    desire: desireRestart,
    answer: async (row) => {
      await requireRunning(row, input.idempotency);
      return toEngine(ctx, row);
    },
  });
}

function desireRestart(row: EngineRow): DesiredStateChange | undefined {
  const patch = {
    ...BOOT_PATCH,
    desired: "running",
    desiredBy: "caller",
    processToReplace: row.processIdentity,
    restartAttempts: 0,
    nextCheckAt: orchNow,
  } as const;
  switch (row.status) {
    case "provisioning":
    case "starting":
      // The process of a boot that has not ended is new already.
      return undefined;
    case "running":
    case "sleeping":
      return { patch, move: "boot" };
    case "failed":
      requireFirstBoot(row);
      return { patch, move: "boot" };
    case "stopping":
    case "stopped":
      throw new DomainError("ENGINE_STOPPED", `the engine is ${row.status}: start it`);
    case "destroying":
      throw engineDestroying();
  }
}
