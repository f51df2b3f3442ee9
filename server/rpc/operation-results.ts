import { z } from "zod";

/*
 * What the typed operations answer. Fields that an engine adds are kept, and none is required: engines of other
 * makers count other things.
 */

export const GatewayConfig = z.looseObject({
  config: z.record(z.string(), z.unknown()).optional(),
  /** Moves with each swap. */
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

/** How well the prompt cache does. */
export const CacheState = z.looseObject({
  input_tokens: z.number().optional(),
  cached_input_tokens: z.number().optional(),
  hit_ratio: z.number().nullable().optional(),
});
export type CacheState = z.infer<typeof CacheState>;
