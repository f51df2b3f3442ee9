import { ensureAuditPartitions } from "../../db/audit-log.ts";
import { removeExpiredIdempotencyRecords } from "../../db/idempotency.ts";
import { removeOldRateWindows } from "../../db/rate-windows.ts";
import { removeOldStoredBytes } from "../../db/stored-bytes.ts";
import { anchorChains } from "../audit/anchor-chains.ts";
import { SYSTEM_ACTOR } from "../audit/audit-entry.ts";
import { retireAudit } from "../audit/retire-audit.ts";
import type { AppContext } from "../compose.ts";
import { measureVolumes } from "../engines/access/measure-volumes.ts";
import { destroyEngineIfAny } from "../engines/operations/destroy-engine-if-any.ts";
import { checkTombstones } from "../engines/reconcile/check-tombstones.ts";
import { toErrorMessage } from "../errors.ts";
import { finishRemovals } from "../products/finish-removals.ts";
import { startLoop, type Loop } from "../time/loop.ts";
import { ensureTurnPartitions } from "../../db/turn-partitions.ts";
import { retireTurns } from "../turns/log/retire-turns.ts";

const INTERVAL_MS = 300_000;

type Task = [name: string, run: (signal: AbortSignal) => Promise<unknown>];

/** The checks of the audit log have a loop of their own, because the first one may walk millions of rows. */
export function startMaintenanceLoops(ctx: AppContext): Loop[] {
  const system = { ...ctx, actor: SYSTEM_ACTOR, requestId: null };
  const tasks: Task[] = [
    ["turn partitions", () => ensureTurnPartitions(ctx.raw)],
    ["audit partitions", () => ensureAuditPartitions(ctx.db)],
    ["turn retention", (signal) => retireTurns(ctx, signal)],
    // After the retention, which decides the hours whose keys are destroyed.
    ["data keys", () => ctx.dataKeys.maintain(ctx.config.turnRetentionMs)],
    ["expired idempotency records", () => removeExpiredIdempotencyRecords(ctx.db)],
    ["counts of stored bytes", () => removeOldStoredBytes(ctx.db)],
    ["sizes of volumes", () => measureVolumes(ctx)],
    ["windows of rate limits", () => removeOldRateWindows(ctx.db)],
    ["tombstones", () => checkTombstones(ctx)],
    [
      "unfinished product removals",
      () => finishRemovals(system, { destroyEngine: (engine) => destroyEngineIfAny(system, engine) }),
    ],
  ];
  const auditTasks: Task[] = [
    ["audit anchors", (signal) => anchorChains(ctx, signal)],
    ["audit retention", (signal) => retireAudit(ctx, signal)],
  ];
  return [startTaskLoop(ctx, "maintenance", tasks), startTaskLoop(ctx, "audit", auditTasks)];
}

/** Runs the tasks one after the other. A task that fails is logged and does not stop the others. */
function startTaskLoop(ctx: AppContext, name: string, tasks: readonly Task[]): Loop {
  const tick = async (signal: AbortSignal) => {
    for (const [task, run] of tasks) {
      if (signal.aborted) return;
      await run(signal).catch((error: unknown) => {
        ctx.log.error({ task, error: toErrorMessage(error) }, "maintenance task failed");
      });
    }
  };
  return startLoop({ ...ctx, name, intervalMs: INTERVAL_MS, tick });
}
