import type { OperationContext } from "./operation-context.ts";
import { orchNow, type EngineRow } from "../../../db/engines.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { DomainError } from "../../errors.ts";
import { awaitReconcile } from "./await-reconcile.ts";
import type { WhenBusy } from "../access/engine-holds.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import { engineNotFound, getEngineRow } from "./get-engine.ts";
import { refuseUnlessRunning } from "./provision-engine.ts";
import { closeGateOnce, recordDesiredState, type DesiredStateChange } from "./record-desired-state.ts";
import { BOOT_PATCH } from "../reconcile/record-move.ts";
import { refuseHopeless } from "./start-engine.ts";

export interface RestartEngineInput {
  productId: string;
  userId: string;
  whenBusy: WhenBusy;
  /** How long `wait` waits for the engine's users. */
  deadlineMs: number;
  idempotency: IdempotencyRecord;
}

/** Ends the process that is on record and starts another: the generation moves. */
export async function restartEngine(ctx: OperationContext, input: RestartEngineInput): Promise<Engine> {
  const found = await getEngineRow(ctx, input);
  using _gate = await closeGateOnce(ctx, found, { ...input, reason: "ENGINE_RESTARTED" });
  const row = await recordDesiredState(ctx, {
    ...input,
    engineId: found.id,
    action: "engine.restart_requested",
    decide: decideRestart,
  });
  const restarted = await awaitReconcile(ctx, { engineId: row.id });
  if (restarted === undefined) throw engineNotFound();
  refuseUnlessRunning(restarted);
  return toEngine(ctx, restarted);
}

function decideRestart(row: EngineRow): DesiredStateChange | undefined {
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
      // A process that is only coming up is as new as one gets.
      return undefined;
    case "running":
    case "sleeping":
      return { patch, move: "boot" };
    case "failed":
      refuseHopeless(row);
      return { patch, move: "boot" };
    case "stopping":
    case "stopped":
      throw new DomainError("ENGINE_STOPPED", "the engine is stopped; start it");
    case "destroying":
      throw new DomainError("ENGINE_DESTROYING", "the engine is being destroyed");
  }
}
