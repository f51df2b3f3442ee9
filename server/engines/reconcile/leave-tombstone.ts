import { deleteEngine, type EngineRowAt } from "../../../db/engines.ts";
import { insertTombstone } from "../../../db/tombstones.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import { SYSTEM_ACTOR } from "../../audit/audit-entry.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

/** Nothing of the engine is left at the runtime: its row goes, a tombstone stays until a sweep has looked again. */
export async function leaveTombstone(ctx: ReconcileContext, row: EngineRowAt): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    if (!(await deleteEngine(tx, { id: row.id, fencingToken: row.fencingToken }))) return;
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
  });
}
