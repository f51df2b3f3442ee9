import type { OperationContext } from "./operation-context.ts";
import type { EngineRow } from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import { engineDestroying } from "../model/absent-engine-errors.ts";
import { STOPPED_BY_CALLER } from "../model/engine-status.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import type { DesiredStateChange } from "./record-desired-state.ts";
import { runOperation, type GatedInput } from "./run-operation.ts";

export interface StopEngineInput extends GatedInput {
  /** The time between SIGTERM and SIGKILL. */
  graceSeconds: number;
}

/** Already stopped is success. */
export async function stopEngine(ctx: OperationContext, input: StopEngineInput): Promise<Engine> {
  const { whenBusy, deadlineMs, graceSeconds } = input;
  return runOperation(ctx, input, {
    action: "engine.stop_requested",
    gate: { whenBusy, deadlineMs, reason: "ENGINE_STOPPED" },
    desire: (row) => desireStop(row, graceSeconds),
    answer: async (row) => toEngine(ctx, row),
  });
}

function desireStop(row: EngineRow, graceSeconds: number): DesiredStateChange | undefined {
  const patch = {
    desired: "stopped",
    desiredBy: "caller",
    stopGraceMs: graceSeconds * 1000,
    nextRestartAt: null,
    nextCheckAt: orchNow,
    statusReason: STOPPED_BY_CALLER,
  } as const;
  switch (row.status) {
    case "stopping":
    case "stopped":
      return row.desired === "stopped" ? undefined : { patch };
    case "provisioning":
    case "starting":
    case "running":
    case "sleeping":
    case "failed":
      return { patch, move: "stop" };
    case "destroying":
      throw engineDestroying();
  }
}
