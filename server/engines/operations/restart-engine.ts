import type { OperationContext } from "./operation-context.ts";
import type { EngineRow } from "../../../db/engines.ts";
import { DomainError } from "../../errors.ts";
import { engineDestroying } from "../model/absent-engine-errors.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import type { DesiredStateChange } from "./record-desired-state.ts";
import { desireBoot } from "./desire-boot.ts";
import { requireRunning } from "./require-running.ts";
import { runOperation, type GatedInput } from "./run-operation.ts";

/** Ends the process on record and starts another one: the generation moves. */
export async function restartEngine(ctx: OperationContext, input: GatedInput): Promise<Engine> {
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
  switch (row.status) {
    case "provisioning":
    case "starting":
      // The process of a boot that has not ended is new already.
      return undefined;
    case "running":
    case "sleeping":
    case "failed":
      return desireBoot(row, { processToReplace: row.processIdentity });
    case "stopping":
    case "stopped":
      throw new DomainError("ENGINE_STOPPED", `the engine is ${row.status}: start it`);
    case "destroying":
      throw engineDestroying();
  }
}
