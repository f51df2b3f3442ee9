import type { RpcContext } from "./rpc-context.ts";
import { callOperation, type OperationInput } from "./call-operation.ts";
import { CacheState } from "./operation-results.ts";

export async function getCacheState(ctx: RpcContext, input: OperationInput): Promise<CacheState> {
  return callOperation(ctx, input, { method: "cache_state", readOnly: true, result: CacheState });
}
