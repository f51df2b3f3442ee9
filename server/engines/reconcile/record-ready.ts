import {
  afterMs,
  orchNow,
  updateEngineIf,
  type EnginePatch,
  type EngineRow,
  type EngineRowAt,
  RESTART_WINDOW_MS,
} from "../../../db/engines.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import { SYSTEM_ACTOR, type AuditAction } from "../../audit/audit-entry.ts";
import { toProcessIdentity, type ContainerObservation } from "../../runtime/engine-runtime.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { recordMove } from "./record-move.ts";
import { spreadInterval } from "./spread-interval.ts";

/**
 * The boot is over: the process is on record, and the key that its container holds is the engine's key. False: the
 * race was lost.
 */
export async function recordReady(
  ctx: ReconcileContext,
  row: EngineRowAt,
  container: ContainerObservation,
): Promise<boolean> {
  const bootMs = Date.parse(row.now) - Date.parse(row.bootStartedAt ?? row.now);
  const patch: EnginePatch = {
    ...toProcessPatch(row, container),
    ...toKeyPatch(row, container),
    bootMs: Math.max(0, Math.round(bootMs)),
    firstReadyAt: row.firstReadyAt ?? orchNow,
    lastHealthAt: orchNow,
    healthFailures: 0,
    processToReplace: null,
    stopGraceMs: null,
    nextCheckAt: afterMs(spreadInterval(ctx.config.healthIntervalMs)),
  };
  return recordMove(ctx, {
    row,
    move: "ready",
    patch,
    action: toReadyAction(row, container),
    metadata: { bootMs },
  });
}

function toReadyAction(row: EngineRow, container: ContainerObservation): AuditAction {
  if (row.nextKeyHash !== null && container.keyHash === row.nextKeyHash) return "engine_key.rotated";
  return row.status === "provisioning" ? "engine.provisioned" : "engine.started";
}

/** A running engine answered; a process that is not the recorded one moves the generation. */
export async function recordStillHealthy(
  ctx: ReconcileContext,
  row: EngineRowAt,
  container: ContainerObservation,
): Promise<void> {
  const settledMs = Date.parse(row.now) - Date.parse(row.bootStartedAt ?? row.now);
  const patch: EnginePatch = {
    ...toProcessPatch(row, container),
    lastHealthAt: orchNow,
    healthFailures: 0,
    nextCheckAt: afterMs(spreadInterval(ctx.config.healthIntervalMs)),
    ...(settledMs > RESTART_WINDOW_MS ? { restartAttempts: 0 } : {}),
  };
  const condition = { id: row.id, statusIn: ["running"] as const, fencingToken: row.fencingToken };
  await ctx.db.transaction(async (tx) => {
    const written = await updateEngineIf(tx, condition, patch);
    if (written === undefined || written.generation === row.generation) return;
    await appendAudit(tx, {
      scope: row.productId,
      actor: SYSTEM_ACTOR,
      action: "engine.process_changed",
      userId: row.userId,
      engineId: row.id,
      metadata: { generation: written.generation, restartCount: container.restartCount },
    });
  });
}

function toProcessPatch(row: EngineRow, container: ContainerObservation): EnginePatch {
  const identity = toProcessIdentity(container);
  if (row.processIdentity === identity) return {};
  const known = row.processIdentity !== null;
  return {
    containerId: container.containerId,
    processIdentity: identity,
    generation: row.generation + (known ? 1 : 0),
    restarts: row.restarts + (known ? 1 : 0),
  };
}

function toKeyPatch(row: EngineRow, container: ContainerObservation): EnginePatch {
  if (row.nextKeyHash === null || container.keyHash !== row.nextKeyHash) return {};
  return {
    keyHash: row.nextKeyHash,
    keySealed: row.nextKeySealed ?? row.keySealed,
    keyPrefix: row.nextKeyPrefix ?? row.keyPrefix,
    nextKeyHash: null,
    nextKeySealed: null,
    nextKeyPrefix: null,
  };
}
