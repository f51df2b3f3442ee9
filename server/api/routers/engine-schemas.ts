import { z } from "zod";
import { DESIRED_STATES, ENGINE_STATUSES } from "../../../db/schema.ts";
import { pageOf } from "./field-schemas.ts";

/** An engine as callers see it. Instants are ISO strings. Missing values are null. */
export const EngineSchema = z.object({
  engineId: z.string(),
  userId: z.string(),
  status: z.enum(ENGINE_STATUSES),
  /** `CODE: text`. */
  statusReason: z.string().nullable(),
  sleepDepth: z.enum(["paused", "stopped"]).nullable(),
  desired: z.enum(DESIRED_STATES),
  generation: z.number(),
  image: z.string(),
  imageId: z.string().nullable(),
  url: z.string().nullable(),
  keyPrefix: z.string(),
  bootMs: z.number().nullable(),
  restarts: z.number(),
  nextRestartAt: z.string().nullable(),
  drift: z.boolean(),
  createdAt: z.string(),
  updatedAt: z.string(),
  lastHealthAt: z.string().nullable(),
  lastActivityAt: z.string().nullable(),
});

export const ProvisionedEngine = z.object({ engine: EngineSchema, apiKey: z.string() });
export const DestroyedEngine = z.object({ engineId: z.string(), destroyed: z.literal(true) });
export const EnginePage = pageOf(EngineSchema);
