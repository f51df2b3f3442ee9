import type { Db } from "../../../db/client.ts";
import {
  findEngine,
  lockEngine,
  updateEngineIf,
  type EnginePatch,
  type EngineRow,
} from "../../../db/engines.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import type { AuditAction } from "../../audit/audit-entry.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import type { BaseContext, CallContext } from "../../context.ts";
import type { EngineHolds } from "../access/engine-holds.ts";
import { engineNotFound } from "./get-engine.ts";
import { moveEngine } from "../model/move-engine.ts";
import type { Move } from "../model/moves.ts";

/** What a verb wants of an engine that it has just locked; undefined: it is so already. */
export interface DesiredStateChange {
  patch: EnginePatch;
  /** The status moves at once, so that nobody sees an engine as usable that is about to go. */
  move?: Move;
  /** Where what is wanted is done by writing it: the audit row says so instead of "requested". */
  action?: AuditAction;
  metadata?: Readonly<Record<string, unknown>>;
}

export interface RecordDesiredStateInput {
  productId: string;
  userId: string;
  /** Whose gate is closed: for a later engine of the same user nothing may be written. */
  engineId?: string;
  action: AuditAction;
  idempotency: IdempotencyRecord;
  /** Noted with the idempotency key, so that a retry after a crash resumes; the engine's id by default. */
  subject?: string;
  /** Decides on the locked row; throws a DomainError to refuse. */
  decide(row: EngineRow): DesiredStateChange | undefined;
}

/**
 * Writes what is wanted, with its audit row, in one transaction; nothing is done yet. Returns the row as it is
 * after. What an earlier attempt with the same idempotency key has written is not written again, whatever has become
 * of the engine since. Throws ENGINE_NOT_FOUND and whatever `decide` throws.
 */
export async function recordDesiredState(
  ctx: Pick<BaseContext, "db"> & CallContext,
  input: RecordDesiredStateInput,
): Promise<EngineRow> {
  return ctx.db.transaction(async (tx) => {
    // Read without a lock first: the idempotency row comes before the engine's in the lock order.
    const found = await findEngine(tx, { productId: input.productId, userId: input.userId });
    if (found === undefined || found.id !== (input.engineId ?? found.id)) throw engineNotFound();
    if (input.subject === undefined && isRecorded(input.idempotency)) {
      if (input.idempotency.subject !== found.id) throw engineNotFound();
      return found;
    }
    await input.idempotency.setSubject(tx, input.subject ?? found.id);
    const row = await lockEngine(tx, input);
    if (row === undefined || row.id !== found.id) throw engineNotFound();
    const intent = input.decide(row);
    if (intent === undefined) return row;
    const written = await applyChange(tx, row, intent);
    await appendAudit(tx, {
      scope: row.productId,
      actor: ctx.actor,
      action: intent.action ?? input.action,
      userId: row.userId,
      engineId: row.id,
      requestId: ctx.requestId,
      metadata: { from: row.status, ...intent.metadata },
    });
    return written;
  });
}

/**
 * The engine's gate, closed for an intent to come. undefined where an earlier attempt with the same key has recorded
 * it: nobody has to make room for it again.
 */
export async function closeGateOnce(
  ctx: { holds: EngineHolds },
  engine: EngineRow,
  input: Parameters<EngineHolds["closeGate"]>[1] & { idempotency: IdempotencyRecord },
): Promise<Disposable | undefined> {
  const { idempotency, whenBusy, deadlineMs, reason } = input;
  return isRecorded(idempotency)
    ? undefined
    : ctx.holds.closeGate(engine.id, { whenBusy, deadlineMs, reason });
}

/** By an earlier attempt with the same key, for the engine that it has noted. */
function isRecorded(idempotency: IdempotencyRecord): boolean {
  return idempotency.resumed && idempotency.subject !== null;
}

async function applyChange(tx: Db, row: EngineRow, intent: DesiredStateChange): Promise<EngineRow> {
  const written =
    intent.move === undefined
      ? await updateEngineIf(tx, { id: row.id }, intent.patch)
      : await moveEngine(tx, { row, move: intent.move, patch: intent.patch });
  if (written === undefined) throw new Error(`${intent.move} is not allowed from ${row.status}`);
  return written;
}
