import type { EngineRow, EngineUser } from "../../../db/engines.ts";
import { findEarlierWork } from "../../idempotency/find-earlier-work.ts";
import type { CloseGateOptions } from "../access/engine-holds.ts";
import { engineNotFound } from "../model/absent-engine-errors.ts";
import { awaitReconcile } from "./await-reconcile.ts";
import { getEngineRow } from "./get-engine.ts";
import type { OperationContext } from "./operation-context.ts";
import {
  recordDesiredState,
  type DesiredStateRequest,
  type OperationInput,
  type RecordedRequest,
} from "./record-desired-state.ts";

/*
 *   first attempt:     close the gate ─▶ record the desired state ─┐
 *   resumed attempt:   find the engine by the noted subject ───────┴─▶ wait for reconcile ─▶ answer
 *
 * A resumed attempt writes nothing. So it undoes nothing that other callers have asked for since.
 */

/** The input of an operation that first makes the engine's holds end. */
export type GatedInput = OperationInput & Pick<CloseGateOptions, "whenBusy" | "deadlineMs">;

/** A change of an engine's desired state, as data for `runOperation`. */
export interface EngineOperation<Reply> extends DesiredStateRequest {
  /** How the operation makes the engine's holds end before it records anything. undefined: the holds stay. */
  gate?: CloseGateOptions;
  /** When the gate opens again: as soon as the desired state is recorded, or when the operation ends (the default). */
  gateOpens?: "recorded" | "ended";
  /** How long to wait for reconcile, in milliseconds. undefined: until the engine is steady. */
  reconcileDeadlineMs?: number | undefined;
  /**
   * The id of the engine that an earlier attempt has noted with this subject. undefined: that attempt's work has ended
   * without success; record the desired state again. By default the subject is the engine's id.
   */
  resume?(subject: string): Promise<string | undefined>;
  /** The reply, from the row after reconcile and the subject that this or the earlier attempt has noted. */
  answer(row: EngineRow, subject: string): Promise<Reply>;
  /** The reply if the engine is gone after reconcile. By default ENGINE_NOT_FOUND is thrown. */
  answerGone?(engineId: string): Reply;
}

/**
 * Records the desired state, waits for reconcile, and answers. Throws ENGINE_NOT_FOUND, ENGINE_BUSY, and what `desire`,
 * `answer` and `awaitReconcile` throw.
 */
export async function runOperation<Reply>(
  ctx: OperationContext,
  input: OperationInput,
  operation: EngineOperation<Reply>,
): Promise<Reply> {
  const resumed = await findEarlierWork(input.idempotency, async (subject) => {
    const engineId = operation.resume === undefined ? subject : await operation.resume(subject);
    return engineId === undefined ? undefined : { engineId, subject };
  });
  if (resumed !== undefined) return finish(ctx, operation, { ...resumed, user: input });
  if (operation.gate === undefined) {
    const recorded = await recordDesiredState(ctx, input, operation);
    return finish(ctx, operation, { ...recorded, user: input });
  }
  const { id: engineId } = await getEngineRow(ctx, input);
  using gate = await ctx.holds.closeGate(engineId, operation.gate);
  const started = await recordDesiredState(ctx, { ...input, engineId }, operation);
  if (operation.gateOpens === "recorded") gate[Symbol.dispose]();
  return await finish(ctx, operation, { ...started, user: input });
}

async function finish<Reply>(
  ctx: OperationContext,
  operation: EngineOperation<Reply>,
  { engineId, subject, user }: RecordedRequest & { user: EngineUser },
): Promise<Reply> {
  const row = await awaitReconcile(ctx, { engineId, deadlineMs: operation.reconcileDeadlineMs });
  // A resumed attempt has the id from the idempotency record, which no MAC covers.
  const isOther = row !== undefined && (row.productId !== user.productId || row.userId !== user.userId);
  if (isOther) throw engineNotFound();
  if (row !== undefined) return operation.answer(row, subject);
  if (operation.answerGone === undefined) throw engineNotFound();
  return operation.answerGone(engineId);
}
