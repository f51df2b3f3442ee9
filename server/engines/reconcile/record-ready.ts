import {
  afterMs,
  RESTART_WINDOW_MS,
  updateEngineIf,
  type EnginePatch,
  type EngineRow,
  type EngineRowAt,
} from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import { SYSTEM_ACTOR, type AuditAction } from "../../audit/audit-entry.ts";
import { toProvenPatch } from "../model/engine-mac.ts";
import { findStatusReasonCode, toStatusReason } from "../model/engine-status.ts";
import type { ContainerObservation } from "../../runtime/engine-runtime.ts";
import { toMsSinceBoot } from "./ms-since-boot.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { NO_NEXT_KEY, recordMove } from "./record-move.ts";
import { spreadInterval } from "./spread-interval.ts";

/**
 * Ends the boot and releases the lease. Records the process, and makes the key that the container holds the engine's
 * key. False: another writer won.
 */
export async function recordReady(
  ctx: ReconcileContext,
  row: EngineRowAt,
  container: ContainerObservation,
): Promise<boolean> {
  const bootMs = toMsSinceBoot(row);
  const patch: EnginePatch = {
    ...toHealthyPatch(ctx, row, container),
    ...toKeyPatch(row, container),
    bootMs: Math.max(0, Math.round(bootMs)),
    firstReadyAt: row.firstReadyAt ?? orchNow,
    processToReplace: null,
    stopGraceMs: null,
    ...toKeptReason(row),
  };
  const action = toReadyAction(row, container);
  return recordMove(ctx, { row, move: "ready", patch, action, metadata: { bootMs } });
}

/** If the runtime began the boot for a known cause, the cause stays on the row of the running engine. */
function toKeptReason({ status, statusReason }: EngineRow): EnginePatch {
  const isCause = status === "starting" && findStatusReasonCode(statusReason) === "health_failed";
  return isCause ? { statusReason } : {};
}

/**
 * Records a healthy probe and releases the lease. `why`: how the process on record ended, if another one answered. False:
 * another writer won.
 */
export async function recordStillHealthy(
  ctx: ReconcileContext,
  row: EngineRowAt,
  { container, why }: { container: ContainerObservation; why?: string | undefined },
): Promise<boolean> {
  const patch: EnginePatch = {
    ...toHealthyPatch(ctx, row, container),
    ...(why !== undefined && { statusReason: toStatusReason("health_failed", why) }),
    ...(toMsSinceBoot(row) > RESTART_WINDOW_MS && { restartAttempts: 0 }),
  };
  const { patch: proven, mac } = toProvenPatch(ctx.keyring, row, patch);
  const condition = { id: row.id, statusIn: ["running"] as const, fencingToken: row.fencingToken, mac };
  return ctx.db.transaction(async (tx) => {
    const written = await updateEngineIf(tx, condition, proven);
    if (written === undefined) return false;
    if (written.generation === row.generation) return true;
    await appendAudit(tx, {
      scope: row.productId,
      actor: SYSTEM_ACTOR,
      action: "engine.process_changed",
      userId: row.userId,
      engineId: row.id,
      metadata: { generation: written.generation, restartCount: container.restartCount, why },
    });
    return true;
  });
}

function toReadyAction(row: EngineRow, container: ContainerObservation): AuditAction {
  if (row.nextKeyHash !== null && container.keyHash === row.nextKeyHash) return "engine_key.rotated";
  return row.status === "provisioning" ? "engine.provisioned" : "engine.started";
}

/** A process that is not the recorded one moves the generation, except the engine's first. */
function toHealthyPatch(
  ctx: Pick<ReconcileContext, "config">,
  row: EngineRow,
  { containerId, endpoint, processIdentity, startedAt }: ContainerObservation,
): EnginePatch {
  const isNew = row.processIdentity !== processIdentity;
  const added = row.processIdentity === null ? 0 : 1;
  return {
    ...(isNew && {
      containerId,
      processIdentity,
      processStartedAt: startedAt,
      generation: row.generation + added,
      restarts: row.restarts + added,
    }),
    endpoint,
    lastHealthAt: orchNow,
    healthFailures: 0,
    nextCheckAt: afterMs(spreadInterval(ctx.config.healthIntervalMs)),
    leaseReplica: null,
  };
}

function toKeyPatch(row: EngineRow, container: ContainerObservation): EnginePatch {
  if (row.nextKeyHash === null || container.keyHash !== row.nextKeyHash) return {};
  return {
    keyHash: row.nextKeyHash,
    keySealed: row.nextKeySealed ?? row.keySealed,
    keyPrefix: row.nextKeyPrefix ?? row.keyPrefix,
    ...NO_NEXT_KEY,
  };
}
