import type { RpcContext } from "./rpc-context.ts";
import type { z } from "zod";
import { DomainError } from "../errors.ts";
import { callEngine } from "./call-engine.ts";

const OPERATION_TIMEOUT_MS = 30_000;

export interface OperationInput {
  productId: string;
  userId: string;
  signal?: AbortSignal | undefined;
}

interface Operation<Schema> {
  method: "get_config" | "set_config" | "reload" | "quota_state" | "cache_state";
  params?: Readonly<Record<string, unknown>>;
  readOnly: boolean;
  result: Schema;
}

/**
 * Calls an operation that the contract names and checks the shape of its result. Throws what `callEngine` throws, and
 * ENGINE_ERROR for another shape.
 */
export async function callOperation<Schema extends z.ZodType>(
  ctx: RpcContext,
  input: OperationInput,
  { method, params = {}, readOnly, result: schema }: Operation<Schema>,
): Promise<z.infer<Schema>> {
  const { productId, userId, signal } = input;
  const call = { productId, userId, method, params, timeoutMs: OPERATION_TIMEOUT_MS, readOnly, signal };
  const { result } = await callEngine(ctx, call);
  const parsed = schema.safeParse(result);
  if (parsed.success) return parsed.data;
  const effect = readOnly ? "" : "; the engine did apply the operation";
  throw new DomainError(
    "ENGINE_ERROR",
    `the engine's answer to ${method} does not have the shape of the contract${effect}`,
  );
}
