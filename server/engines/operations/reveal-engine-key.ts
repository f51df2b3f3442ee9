import type { EngineUser } from "../../../db/engines.ts";
import { recordCall, type AuditAppends } from "../../audit/append-audit.ts";
import { openEngineKey } from "../../keys/engine-key.ts";
import { getEngineRow } from "./get-engine.ts";
import type { OperationContext } from "./operation-context.ts";

/** The key that the engine accepts now. The audit row is committed before this returns. Throws ENGINE_NOT_FOUND, ROW_TAMPERED. */
export async function revealEngineKey(
  ctx: Pick<OperationContext, "db" | "keyring" | "actor" | "requestId"> & { auditAppends: AuditAppends },
  input: EngineUser,
): Promise<{ apiKey: string }> {
  const row = await getEngineRow(ctx, input);
  const apiKey = openEngineKey(ctx.keyring, row);
  await recordCall(ctx, {
    scope: row.productId,
    actor: ctx.actor,
    action: "engine_key.revealed",
    userId: row.userId,
    engineId: row.id,
    requestId: ctx.requestId,
    metadata: { keyPrefix: row.keyPrefix },
  });
  return { apiKey };
}
