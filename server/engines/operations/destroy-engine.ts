import type { OperationContext } from "./operation-context.ts";
import type { EngineRow } from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import type { DesiredStateChange } from "./record-desired-state.ts";
import { runOperation, type GatedInput } from "./run-operation.ts";

type DestroyedEngine = { engineId: string; destroyed: true };

/** When this returns, the engine's container, volume, port and key are gone. Throws ENGINE_NOT_FOUND. */
export async function destroyEngine(ctx: OperationContext, input: GatedInput): Promise<DestroyedEngine> {
  const { whenBusy, deadlineMs } = input;
  return runOperation(ctx, input, {
    action: "engine.destroy_requested",
    gate: { whenBusy, deadlineMs, reason: "ENGINE_STOPPED" },
    // Callers that wait at the gate get ENGINE_DESTROYING at once: this engine will not run again.
    gateOpens: "recorded",
    desire: desireDestroy,
    answer: async (row) => toDestroyed(row.id),
    answerGone: toDestroyed,
  });
}

function toDestroyed(engineId: string): DestroyedEngine {
  return { engineId, destroyed: true };
}

function desireDestroy(row: EngineRow): DesiredStateChange | undefined {
  if (row.status === "destroying") return undefined;
  const patch = {
    desired: "destroyed",
    desiredBy: "caller",
    nextRestartAt: null,
    nextCheckAt: orchNow,
  } as const;
  return { patch, move: "destroy" };
}
