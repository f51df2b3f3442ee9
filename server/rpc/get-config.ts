import type { RpcContext } from "./rpc-context.ts";
import { callOperation, type OperationInput } from "./call-operation.ts";
import { GatewayConfig } from "./operation-results.ts";

export async function getConfig(ctx: RpcContext, input: OperationInput): Promise<GatewayConfig> {
  return callOperation(ctx, input, { method: "get_config", readOnly: true, result: GatewayConfig });
}
