import { afterMs, updateEngineIf, type EnginePatch, type EngineRowAt } from "../../../db/engines.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import { SYSTEM_ACTOR } from "../../audit/audit-entry.ts";
import { explainTampering } from "../../keys/tampered-row.ts";
import { toStatusReason } from "../model/engine-status.ts";
import { moveEngine } from "../model/move-engine.ts";
import { isAllowed, MOVES } from "../model/moves.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

/** The row may be restored by then. */
const RECHECK_MS = 60_000;

/**
 * Refuses an engine whose row does not verify: nothing of the row is used, and callers read the reason. The container
 * stays as it is, because an authentic row has made it. Once the row verifies again, the engine boots.
 */
export async function refuseTampered(ctx: ReconcileContext, row: EngineRowAt): Promise<void> {
  ctx.tamperReports.report({ table: "engines", id: row.id, mac: row.mac });
  const statusReason = toStatusReason("row_tampered", explainTampering("engines", row.id));
  const patch: EnginePatch = { statusReason, leaseReplica: null, nextCheckAt: afterMs(RECHECK_MS) };
  if (!isAllowed("fail", row.status) || row.desired === "destroyed") {
    await updateEngineIf(ctx.db, { id: row.id, fencingToken: row.fencingToken }, patch);
    return;
  }
  const nextRestartAt = row.firstReadyAt === null ? null : afterMs(RECHECK_MS);
  const isMoved = await ctx.db.transaction(async (tx) => {
    const input = { row, fencingToken: row.fencingToken, move: "fail" as const };
    const moved = await moveEngine(tx, { ...input, patch: { ...patch, nextRestartAt } });
    if (moved === undefined) return false;
    await appendAudit(tx, {
      // The row's own product may be forged.
      scope: "platform",
      actor: SYSTEM_ACTOR,
      action: MOVES.fail.action,
      engineId: row.id,
      metadata: { from: row.status, code: "row_tampered" },
    });
    return true;
  });
  if (isMoved) ctx.metrics.statusMoved(row.status, MOVES.fail.to);
}
