import type { RpcContext } from "./rpc-context.ts";
import { callOperation, type OperationInput } from "./call-operation.ts";
import { GatewayConfig } from "./operation-results.ts";

export interface SetConfigInput extends OperationInput {
  /** Takes the place of the whole config that was there. */
  config: Readonly<Record<string, unknown>>;
}

/** Audited, with the names of the config's top-level fields and nothing of what is in them. */
export async function setConfig(ctx: RpcContext, input: SetConfigInput): Promise<GatewayConfig> {
  const params = { config: input.config };
  return callOperation(ctx, input, { method: "set_config", params, readOnly: false, result: GatewayConfig });
}
