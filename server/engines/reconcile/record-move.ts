import type { EnginePatch, EngineRow } from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import { SYSTEM_ACTOR, type AuditAction } from "../../audit/audit-entry.ts";
import { toProvenPatch } from "../model/engine-mac.ts";
import { moveEngine } from "../model/move-engine.ts";
import { findStatusReasonCode, STOPPED_BY_CALLER } from "../model/engine-status.ts";
import { MOVES, type Move } from "../model/moves.ts";
import type { ReconcileContext } from "./reconcile-context.ts";

export interface RecordMoveInput {
  row: EngineRow;
  move: Move;
  patch?: EnginePatch;
  /** The action in the audit log; by default the move's own. */
  action?: AuditAction;
  metadata?: Readonly<Record<string, unknown>>;
}

/** The columns that each boot resets. */
export const BOOT_PATCH: EnginePatch = {
  bootStartedAt: orchNow,
  processBeforeBoot: null,
  healthFailures: 0,
  nextRestartAt: null,
};

/** The columns of a key rotation that has ended. */
export const NO_NEXT_KEY = { nextKeyHash: null, nextKeySealed: null, nextKeyPrefix: null };

/** A move by the reconciler with its audit row, in one transaction. False: another writer won. */
export async function recordMove(
  ctx: Pick<ReconcileContext, "db" | "keyring" | "metrics">,
  input: RecordMoveInput,
): Promise<boolean> {
  const { row, move } = input;
  const proven = toProvenPatch(ctx.keyring, row, { ...toMovePatch(row, move), ...input.patch });
  const moved = await ctx.db.transaction(async (tx) => {
    const written = await moveEngine(tx, { row, move, fencingToken: row.fencingToken, ...proven });
    if (written === undefined) return false;
    await appendAudit(tx, {
      scope: row.productId,
      actor: SYSTEM_ACTOR,
      action: input.action ?? MOVES[move].action,
      userId: row.userId,
      engineId: row.id,
      metadata: { from: row.status, generation: written.generation, ...input.metadata },
    });
    return true;
  });
  if (moved) ctx.metrics.statusMoved(row.status, MOVES[move].to);
  return moved;
}

function toMovePatch(row: EngineRow, move: Move): EnginePatch {
  if (move === "boot") return BOOT_PATCH;
  if (move !== "finish_stop") return {};
  // The reason for stopping stays the reason for being stopped. A step that the runtime refused on the way is no reason.
  const isRefusal = findStatusReasonCode(row.statusReason) === "runtime_refused";
  return { statusReason: isRefusal ? STOPPED_BY_CALLER : row.statusReason };
}
