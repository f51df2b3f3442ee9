import { z } from "zod";
import { DESIRED_STATES, ENGINE_STATUSES } from "../../../db/schema.ts";
import { NOT_ADMITTED_REASONS } from "../../engines/operations/admit-engine.ts";
import { STATUS_REASONS } from "../../engines/model/engine-status.ts";
import { instantText, instantTextOrNull } from "../../time/instant-text.ts";
import { pageOf } from "./field-schemas.ts";

const STATUS_MEANING = [
  "`provisioning`: its first boot is under way.",
  "`starting`: a later boot is under way.",
  "`running`: ready for calls.",
  "`sleeping`: not used yet.",
  "`stopping`: its process is being ended.",
  "`stopped`: no process runs, and the volume is kept.",
  "`failed`: see `statusReason` and `nextRestartAt`.",
  "`destroying`: container, volume, port and key are being removed.",
].join(" ");

/** An engine as callers see it. Instants are ISO strings. Missing values are null. */
export const EngineSchema = z
  .object({
    engineId: z
      .string()
      .meta({ format: "uuid" })
      .describe("The engine's id. A user who is provisioned again after a destroy has another one."),
    userId: z.string().describe("The user whose engine this is."),
    status: z.enum(ENGINE_STATUSES).describe(STATUS_MEANING),
    statusReason: z
      .string()
      .nullable()
      .describe(
        `Why the engine has this status, as \`CODE: text\`. The codes: ${STATUS_REASONS.join(", ")}. null: there is nothing to explain.`,
      ),
    sleepDepth: z
      .enum(["paused", "stopped"])
      .nullable()
      .describe("How deeply the engine sleeps. Always null, because engines cannot sleep yet."),
    desired: z
      .enum(DESIRED_STATES)
      .describe(
        "What callers asked for last. While it differs from `status`, the service works on it. `paused` is not used yet.",
      ),
    generation: z
      .int()
      .describe(
        "Counts the processes of the engine, from 1. It grows when the engine has lost what it held in memory; the volume is kept.",
      ),
    image: z.string().describe("The name of the image that the engine runs."),
    imageId: z
      .string()
      .nullable()
      .describe(
        "The id that the image's name resolved to at the first boot. Later boots use the same id. null: not resolved yet.",
      ),
    url: z
      .string()
      .nullable()
      .describe(
        "The base URL of the engine, for calls with the engine key. null: no container of the engine exists.",
      ),
    keyPrefix: z
      .string()
      .describe("The first characters of the engine key, by which people tell keys apart."),
    bootMs: z
      .int()
      .nullable()
      .describe("How long the last boot took, in milliseconds. null: no boot has succeeded yet."),
    restarts: z
      .int()
      .describe("How many processes came after the first, whether the service or the runtime started them."),
    nextRestartAt: instantTextOrNull(
      "When the service starts the engine again. null: no restart is planned. null in `failed`: the service has given up, so call `engines.start`.",
    ),
    drift: z
      .boolean()
      .describe("Whether a container that is made with today's defaults would differ from this one."),
    createdAt: instantText("When the engine was provisioned."),
    updatedAt: instantText("When the engine's record last changed."),
    lastHealthAt: instantTextOrNull("When the engine last answered that it is healthy. null: never."),
    lastActivityAt: instantTextOrNull(
      "When a turn or a call last used the engine, to a few seconds. null: never.",
    ),
  })
  .meta({ id: "Engine", description: "One user's engine." });

export const AdmittedEngine = z
  .discriminatedUnion("admitted", [
    z.object({
      admitted: z.literal(true).describe("The engine takes calls now."),
      engine: EngineSchema.describe("The engine."),
    }),
    z.object({
      admitted: z.literal(false).describe("The engine takes no calls now."),
      reason: z
        .enum(NOT_ADMITTED_REASONS)
        .describe(
          "`engine_not_found`: the user has no engine. `engine_provisioning`: it boots. `engine_stopped`: call `engines.start`. `engine_unhealthy`: see `engines.get`. `engine_destroying`: it is being removed. `engine_sleeping`: not used yet.",
        ),
      retryAfterMs: z
        .int()
        .optional()
        .describe("Ask again after so many milliseconds. Absent: waiting alone does not help."),
    }),
  ])
  .meta({ id: "EngineAdmission", description: "Whether a user's engine takes calls now." });
export const ProvisionedEngine = z.object({
  engine: EngineSchema.describe("The engine. It is still in `provisioning` if the call did not wait for it."),
  apiKey: z
    .string()
    .describe("The engine key, for calls to the engine's `url`. Later, `engineKeys.reveal` returns it."),
});
export const DestroyedEngine = z.object({
  engineId: z.string().meta({ format: "uuid" }).describe("The engine that is gone."),
  destroyed: z.literal(true).describe("Always true: container, volume, port and key are gone."),
});
export const EnginePage = pageOf(EngineSchema);
