import type { OperationContext } from "./operation-context.ts";
import { findEngineById, orchNow, type EngineRow } from "../../../db/engines.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import type { BaseContext } from "../../context.ts";
import { awaitReconcile } from "./await-reconcile.ts";
import type { WhenBusy } from "../access/engine-holds.ts";
import { getEngineRow } from "./get-engine.ts";
import { recordDesiredState, type DesiredStateChange } from "./record-desired-state.ts";

export interface DestroyEngineInput {
  productId: string;
  userId: string;
  whenBusy: WhenBusy;
  /** How long `wait` waits for the engine's users. */
  deadlineMs: number;
  idempotency: IdempotencyRecord;
}

export interface DestroyedEngine {
  engineId: string;
  destroyed: true;
}

/** Container, volume, port and key are gone when this returns. Throws ENGINE_NOT_FOUND when there is no engine. */
export async function destroyEngine(
  ctx: OperationContext,
  input: DestroyEngineInput,
): Promise<DestroyedEngine> {
  const engineId = (await findResumed(ctx, input)) ?? (await beginDestroy(ctx, input));
  await awaitReconcile(ctx, { engineId });
  return { engineId, destroyed: true };
}

/** An earlier attempt with the same idempotency key wrote the intent and died: that engine, and no later one. */
async function findResumed(
  ctx: Pick<BaseContext, "db">,
  input: DestroyEngineInput,
): Promise<string | undefined> {
  const { resumed, subject } = input.idempotency;
  if (!resumed || subject === null) return undefined;
  const row = await findEngineById(ctx.db, subject);
  return row === undefined || row.desired === "destroyed" ? subject : undefined;
}

async function beginDestroy(ctx: OperationContext, input: DestroyEngineInput): Promise<string> {
  const found = await getEngineRow(ctx, input);
  using _gate = await ctx.holds.closeGate(found.id, {
    whenBusy: input.whenBusy,
    deadlineMs: input.deadlineMs,
    reason: "ENGINE_STOPPED",
  });
  const row = await recordDesiredState(ctx, {
    ...input,
    engineId: found.id,
    action: "engine.destroy_requested",
    decide: decideDestroy,
  });
  return row.id;
}

function decideDestroy(row: EngineRow): DesiredStateChange | undefined {
  if (row.status === "destroying") return undefined;
  const patch = {
    desired: "destroyed",
    desiredBy: "caller",
    nextRestartAt: null,
    nextCheckAt: orchNow,
  } as const;
  return { patch, move: "destroy" };
}
