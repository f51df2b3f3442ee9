import { recordCall, type AuditAppends } from "../../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../../context.ts";
import type { Keyring } from "../../keys/keyring.ts";
import { getEngineRow, type EngineUser } from "./get-engine.ts";

/** The key that the engine accepts now. The audit row is committed before the key leaves. Throws ENGINE_NOT_FOUND. */
export async function revealEngineKey(
  ctx: Pick<BaseContext, "db"> & { keyring: Keyring; auditAppends: AuditAppends } & CallContext,
  input: EngineUser,
): Promise<{ apiKey: string }> {
  const row = await getEngineRow(ctx, input);
  const apiKey = ctx.keyring.open(row.keySealed, row.id);
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
