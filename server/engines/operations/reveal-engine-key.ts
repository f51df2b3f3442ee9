import { recordCall } from "../../audit/append-audit.ts";
import type { AppContext, CallContext } from "../../context.ts";
import { getEngineRow, type EngineKeyInput } from "./get-engine.ts";

/** The key that the engine checks now. Audited before it is shown. Throws ENGINE_NOT_FOUND. */
export async function revealEngineKey(
  ctx: Pick<AppContext, "db" | "keyring"> & CallContext,
  input: EngineKeyInput,
): Promise<{ apiKey: string }> {
  const row = await getEngineRow(ctx, input);
  const apiKey = ctx.keyring.open(row.keySealed, row.id);
  await recordCall(ctx.db, {
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
