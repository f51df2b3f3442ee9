import type { AppContext, CallContext } from "../context.ts";
import { callOperation, type OperationInput } from "./call-operation.ts";
import { CacheState } from "./operation-results.ts";

export async function getCacheState(
  ctx: AppContext & CallContext,
  input: OperationInput,
): Promise<CacheState> {
  return callOperation(ctx, input, { method: "cache_state", readOnly: true, result: CacheState });
}
