import type { RpcContext } from "./rpc-context.ts";
import { callOperation, type OperationInput } from "./call-operation.ts";
import { ReloadedConfig } from "./operation-results.ts";

/** Makes the engine read its config file again. The audit log records the call. */
export async function reloadConfig(ctx: RpcContext, input: OperationInput): Promise<ReloadedConfig> {
  return callOperation(ctx, input, { method: "reload", readOnly: false, result: ReloadedConfig });
}
