import type { EngineUser } from "../../../db/engines.ts";
import { NO_RECORD } from "../../idempotency/idempotency-record.ts";
import { DomainError } from "../../errors.ts";
import { destroyEngine } from "./destroy-engine.ts";
import type { OperationContext } from "./operation-context.ts";

/** Destroys an engine of a product that is being removed, and interrupts its holders. No engine is success. */
export async function destroyEngineIfAny(ctx: OperationContext, input: EngineUser): Promise<void> {
  try {
    const gate = { whenBusy: "interrupt", deadlineMs: 1_000 } as const;
    await destroyEngine(ctx, { ...input, ...gate, idempotency: NO_RECORD });
  } catch (error) {
    if (error instanceof DomainError && error.reason === "ENGINE_NOT_FOUND") return;
    throw error;
  }
}
