import type { OperationContext } from "./operation-context.ts";
import { orchNow, type EngineRow } from "../../../db/engines.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { DomainError } from "../../errors.ts";
import { awaitReconcile } from "./await-reconcile.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import { engineNotFound } from "./get-engine.ts";
import { refuseUnlessRunning } from "./provision-engine.ts";
import { recordDesiredState, type DesiredStateChange } from "./record-desired-state.ts";
import { BOOT_PATCH } from "../reconcile/record-move.ts";

export interface StartEngineInput {
  productId: string;
  userId: string;
  deadlineMs?: number | undefined;
  idempotency: IdempotencyRecord;
}

/** Already running is success. An engine that was given up gets a fresh budget of restarts. */
export async function startEngine(ctx: OperationContext, input: StartEngineInput): Promise<Engine> {
  const row = await recordDesiredState(ctx, {
    ...input,
    action: "engine.start_requested",
    decide: decideStart,
  });
  const started = await awaitReconcile(ctx, { engineId: row.id, deadlineMs: input.deadlineMs });
  if (started === undefined) throw engineNotFound();
  refuseUnlessRunning(started);
  return toEngine(ctx, started);
}

function decideStart(row: EngineRow): DesiredStateChange | undefined {
  const patch = {
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
      return { patch: { ...patch, ...BOOT_PATCH }, move: "boot" };
    case "failed":
      refuseHopeless(row);
      return { patch: { ...patch, ...BOOT_PATCH }, move: "boot" };
    case "destroying":
      throw new DomainError("ENGINE_DESTROYING", "the engine is being destroyed");
  }
}

/** What starting cannot help. */
export function refuseHopeless(row: EngineRow): void {
  if (row.status === "failed" && row.firstReadyAt === null) {
    throw new DomainError(
      "ENGINE_UNHEALTHY",
      `its first boot failed; provision it again (${row.statusReason})`,
    );
  }
}
