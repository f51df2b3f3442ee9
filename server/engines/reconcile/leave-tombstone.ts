import { deleteEngine, type EngineRowAt } from "../../../db/engines.ts";
import { insertTombstone } from "../../../db/tombstones.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import { SYSTEM_ACTOR } from "../../audit/audit-entry.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

/** Replaces the row of a destroyed engine by a tombstone. Does nothing if another writer won. */
export async function leaveTombstone(ctx: ReconcileContext, row: EngineRowAt): Promise<void> {
  const isDeleted = await ctx.db.transaction(async (tx) => {
    if (!(await deleteEngine(tx, row))) return false;
    await insertTombstone(tx, {
      engineId: row.id,
      productId: row.productId,
      userId: row.userId,
      runtimeHost: row.runtimeHost,
      volumeName: row.volumeName,
    });
    await appendAudit(tx, {
      scope: row.productId,
      actor: SYSTEM_ACTOR,
      action: "engine.destroyed",
      userId: row.userId,
      engineId: row.id,
      metadata: { generation: row.generation },
    });
    return true;
  });
  if (isDeleted) ctx.metrics.statusMoved(row.status, null);
}
