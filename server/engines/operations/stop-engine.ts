import type { OperationContext } from "./operation-context.ts";
import { orchNow, type EngineRow } from "../../../db/engines.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { DomainError } from "../../errors.ts";
import { awaitReconcile } from "./await-reconcile.ts";
import type { WhenBusy } from "../access/engine-holds.ts";
import { toStatusReason } from "../model/engine-status.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import { engineNotFound, getEngineRow } from "./get-engine.ts";
import { closeGateOnce, recordDesiredState, type DesiredStateChange } from "./record-desired-state.ts";

export interface StopEngineInput {
  productId: string;
  userId: string;
  /** Between SIGTERM and SIGKILL. */
  graceSeconds: number;
  whenBusy: WhenBusy;
  /** How long `wait` waits for the engine's users; the stop itself is waited for on top. */
  deadlineMs: number;
  idempotency: IdempotencyRecord;
}

/** Already stopped is success. */
export async function stopEngine(ctx: OperationContext, input: StopEngineInput): Promise<Engine> {
  const found = await getEngineRow(ctx, input);
  using _gate = await closeGateOnce(ctx, found, { ...input, reason: "ENGINE_STOPPED" });
  const row = await recordDesiredState(ctx, {
    ...input,
    engineId: found.id,
    action: "engine.stop_requested",
    decide: (current) => decideStop(current, input),
  });
  const stopped = await awaitReconcile(ctx, { engineId: row.id });
  if (stopped === undefined) throw engineNotFound();
  return toEngine(ctx, stopped);
}

function decideStop(row: EngineRow, input: StopEngineInput): DesiredStateChange | undefined {
  const patch = {
    desired: "stopped",
    desiredBy: "caller",
    stopGraceMs: input.graceSeconds * 1000,
    nextRestartAt: null,
    nextCheckAt: orchNow,
    statusReason: toStatusReason("stopped_by_caller", "engines.stop"),
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
      throw new DomainError("ENGINE_DESTROYING", "the engine is being destroyed");
  }
}
