import type { Db } from "../../../db/client.ts";
import {
  findEngine,
  lockEngine,
  updateEngineIf,
  type EnginePatch,
  type EngineRow,
  type EngineUser,
} from "../../../db/engines.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import type { AuditAction } from "../../audit/audit-entry.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { engineNotFound } from "../model/absent-engine-errors.ts";
import { toProvenPatch, type ProvenPatch } from "../model/engine-mac.ts";
import { moveEngine } from "../model/move-engine.ts";
import { MOVES, type Move } from "../model/moves.ts";
import type { OperationContext } from "./operation-context.ts";

export interface OperationInput extends EngineUser {
  idempotency: IdempotencyRecord;
}

/** What an operation writes into a locked engine row. */
export interface DesiredStateChange {
  patch: EnginePatch;
  /** Changes the status in the same transaction, so that no caller takes an engine for usable that is about to stop. */
  move?: Move;
  /** Replaces the request's audit action if the write itself has the whole effect. */
  action?: AuditAction;
  metadata?: Readonly<Record<string, unknown>>;
}

export interface DesiredStateRequest {
  /** The audit action of the request. */
  action: AuditAction;
  /** Noted in the idempotency record, for a retry to resume by. By default the engine's id. */
  subject?: string;
  /** Decides on the locked row. undefined: the engine needs no change. Throws a DomainError to refuse. */
  desire(row: EngineRow): DesiredStateChange | undefined;
}

export interface RecordedRequest {
  engineId: string;
  subject: string;
}

/**
 * Writes the desired state, its audit row and the idempotency record's subject in one transaction. Nothing else is done
 * yet. With `engineId`, refuses to write to a later engine of the same user. Throws ENGINE_NOT_FOUND, ROW_TAMPERED and
 * what `desire` throws.
 */
export async function recordDesiredState(
  ctx: Pick<OperationContext, "db" | "keyring" | "metrics" | "actor" | "requestId" | "recordSlots">,
  input: OperationInput & { engineId?: string },
  request: DesiredStateRequest,
): Promise<RecordedRequest> {
  using _slot = await ctx.recordSlots.take(input.productId);
  const { moved, ...recorded } = await ctx.db.transaction(async (tx) => {
    // Read without a lock, because the idempotency record has to be locked before the engine.
    const found = await findEngine(tx, input);
    if (found === undefined || found.id !== (input.engineId ?? found.id)) throw engineNotFound();
    const subject = request.subject ?? found.id;
    await input.idempotency.setSubject(tx, subject);
    const row = await lockEngine(tx, input);
    if (row === undefined || row.id !== found.id) throw engineNotFound();
    const change = request.desire(row);
    if (change !== undefined) {
      await applyChange(tx, row, { ...change, ...toProvenPatch(ctx.keyring, row, change.patch) });
      await appendAudit(tx, {
        scope: row.productId,
        actor: ctx.actor,
        action: change.action ?? request.action,
        userId: row.userId,
        engineId: row.id,
        requestId: ctx.requestId,
        metadata: { from: row.status, ...change.metadata },
      });
    }
    return { engineId: row.id, subject, moved: change?.move && { from: row.status, move: change.move } };
  });
  if (moved !== undefined) ctx.metrics.statusMoved(moved.from, MOVES[moved.move].to);
  return recorded;
}

async function applyChange(
  tx: Db,
  row: EngineRow,
  { move, patch, mac }: DesiredStateChange & ProvenPatch,
): Promise<void> {
  const written =
    move === undefined
      ? await updateEngineIf(tx, { id: row.id, mac }, patch)
      : await moveEngine(tx, { row, move, patch, mac });
  if (written === undefined) {
    throw new Error(`the move "${move}" is not allowed from the status "${row.status}"`);
  }
}
