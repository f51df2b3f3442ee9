import type { OperationContext } from "./operation-context.ts";
import { NO_RECORD } from "../../idempotency/idempotency-record.ts";
import { DomainError } from "../../errors.ts";
import { destroyEngine } from "./destroy-engine.ts";
import type { EngineKeyInput } from "./get-engine.ts";

/** Destroys the engine of a product that is on its way out, whoever uses it; one that is gone already is success. */
export async function destroyEngineIfAny(ctx: OperationContext, input: EngineKeyInput): Promise<void> {
  const { productId, userId } = input;
  try {
    await destroyEngine(ctx, {
      productId,
      userId,
      whenBusy: "interrupt",
      deadlineMs: 1_000,
      idempotency: NO_RECORD,
    });
  } catch (error) {
    if (error instanceof DomainError && error.reason === "ENGINE_NOT_FOUND") return;
    throw error;
  }
}
