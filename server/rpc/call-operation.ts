import { z } from "zod";
import { DomainError } from "../errors.ts";
import { callEngine, type CallEngineInput } from "./call-engine.ts";
import type { RpcContext } from "./rpc-context.ts";

const OPERATION_TIMEOUT_MS = 30_000;

// In a result all fields are optional and unknown fields are kept: each engine implementation may count other things.
const GatewayConfig = z.looseObject({
  config: z
    .record(z.string(), z.unknown())
    .optional()
    .describe("The engine's gateway config. Its shape is the engine's own."),
  revision: z.number().optional().describe("Grows with each change of the config."),
  updated_at: z.string().nullable().optional().describe("When the config last changed. null: never."),
});

const QuotaState = z.looseObject({
  turns: z.number().optional().describe("Turns that the engine has counted."),
  input_tokens: z.number().optional().describe("Tokens that the engine has sent to models."),
  output_tokens: z.number().optional().describe("Tokens that models have answered."),
});

/** The efficiency of the prompt cache. */
const CacheState = z.looseObject({
  input_tokens: z.number().optional().describe("Tokens that the engine has sent to models."),
  cached_input_tokens: z.number().optional().describe("How many of them came from the prompt cache."),
  hit_ratio: z
    .number()
    .nullable()
    .optional()
    .describe("The cached part of the input, from 0 to 1. null: there was no input yet."),
});

const Reloaded = GatewayConfig.extend({
  reloaded: z.boolean().optional().describe("Whether the engine has read its config file again."),
});

/** The operations that the contract names. The audit log records those that are not read-only. */
export const OPERATIONS = {
  getConfig: { method: "get_config", readOnly: true, result: GatewayConfig },
  /** The param `config` replaces the whole config. */
  setConfig: { method: "set_config", readOnly: false, result: GatewayConfig },
  /** Makes the engine read its config file again. */
  reload: {
    method: "reload",
    readOnly: false,
    result: Reloaded,
  },
  quotaState: { method: "quota_state", readOnly: true, result: QuotaState },
  cacheState: { method: "cache_state", readOnly: true, result: CacheState },
} as const;

/**
 * Calls one of `OPERATIONS`, checks the shape of its result and returns the result's JSON text. Throws what
 * `callEngine` throws, and ENGINE_ERROR for another shape.
 */
export async function callOperation(
  ctx: RpcContext,
  { method, readOnly, result: schema }: { method: string; readOnly: boolean; result: z.ZodType },
  input: Pick<CallEngineInput, "productId" | "userId" | "signal"> & Partial<Pick<CallEngineInput, "params">>,
): Promise<string> {
  const call = { params: {}, ...input, method, timeoutMs: OPERATION_TIMEOUT_MS, readOnly };
  const { result } = await callEngine(ctx, call);
  if (schema.safeParse(result.value).success) return result.json;
  const effect = readOnly ? "" : "; the engine did apply the operation";
  const message = `the engine's answer to ${method} does not have the shape of the contract${effect}`;
  throw new DomainError("ENGINE_ERROR", message);
}
