import type { RpcContext } from "./rpc-context.ts";
import { callOperation, type OperationInput } from "./call-operation.ts";
import { GatewayConfig } from "./operation-results.ts";

export interface SetConfigInput extends OperationInput {
  /** Replaces the whole config. */
  config: Readonly<Record<string, unknown>>;
}

/** The audit log records the call with the names of the config's top-level fields, without their values. */
export async function setConfig(ctx: RpcContext, input: SetConfigInput): Promise<GatewayConfig> {
  const params = { config: input.config };
  return callOperation(ctx, input, { method: "set_config", params, readOnly: false, result: GatewayConfig });
}
