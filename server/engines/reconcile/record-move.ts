import { orchNow, type EnginePatch, type EngineRow } from "../../../db/engines.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import { SYSTEM_ACTOR, type AuditAction } from "../../audit/audit-entry.ts";
import type { BaseContext } from "../../context.ts";
import { moveEngine } from "../model/move-engine.ts";
import { MOVE_ACTIONS, type Move } from "../model/moves.ts";

export interface RecordMoveInput {
  row: EngineRow;
  move: Move;
  patch?: EnginePatch;
  /** What the audit trail calls it, when that is more than the move. */
  action?: AuditAction;
  metadata?: Readonly<Record<string, unknown>>;
}

/** What every boot begins with. */
export const BOOT_PATCH: EnginePatch = {
  bootStartedAt: orchNow,
  processBeforeBoot: null,
  healthFailures: 0,
  nextRestartAt: null,
};

/** A move of the control loop with its audit row, in one transaction. False: the race was lost. */
export async function recordMove(ctx: Pick<BaseContext, "db">, input: RecordMoveInput): Promise<boolean> {
  const { row, move } = input;
  const patch = { ...toMovePatch(row, move), ...input.patch };
  return ctx.db.transaction(async (tx) => {
    const moved = await moveEngine(tx, { row, move, fencingToken: row.fencingToken, patch });
    if (moved === undefined) return false;
    await appendAudit(tx, {
      scope: row.productId,
      actor: SYSTEM_ACTOR,
      action: input.action ?? MOVE_ACTIONS[move],
      userId: row.userId,
      engineId: row.id,
      metadata: { from: row.status, generation: moved.generation, ...input.metadata },
    });
    return true;
  });
}

function toMovePatch(row: EngineRow, move: Move): EnginePatch {
  if (move === "boot") return BOOT_PATCH;
  // Why it was stopped is why it is stopped.
  return move === "settle" ? { statusReason: row.statusReason } : {};
}
