import type { RpcContext } from "./rpc-context.ts";
import { callOperation, type OperationInput } from "./call-operation.ts";
import { QuotaState } from "./operation-results.ts";

export async function getQuotaState(ctx: RpcContext, input: OperationInput): Promise<QuotaState> {
  return callOperation(ctx, input, { method: "quota_state", readOnly: true, result: QuotaState });
}
