import { z } from "zod";

/*
 * The results of the operations that the contract names. All fields are optional and unknown fields are kept, because
 * each engine implementation may count different things.
 */

export const GatewayConfig = z.looseObject({
  config: z.record(z.string(), z.unknown()).optional(),
  /** Grows with each change of the config. */
  revision: z.number().optional(),
  updated_at: z.string().nullable().optional(),
});
export type GatewayConfig = z.infer<typeof GatewayConfig>;

export const ReloadedConfig = GatewayConfig.extend({ reloaded: z.boolean().optional() });
export type ReloadedConfig = z.infer<typeof ReloadedConfig>;

export const QuotaState = z.looseObject({
  turns: z.number().optional(),
  input_tokens: z.number().optional(),
  output_tokens: z.number().optional(),
});
export type QuotaState = z.infer<typeof QuotaState>;

/** The efficiency of the prompt cache. */
export const CacheState = z.looseObject({
  input_tokens: z.number().optional(),
  cached_input_tokens: z.number().optional(),
  hit_ratio: z.number().nullable().optional(),
});
export type CacheState = z.infer<typeof CacheState>;
