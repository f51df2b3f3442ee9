import { z } from "zod";
import { isPinnedImage } from "../engines/model/pinned-image.ts";
import type { BaseContext } from "../context.ts";
import { DomainError } from "../errors.ts";

const Seconds = z
  .number()
  .positive()
  .max(365 * 86_400);

const LiveTurns = z.int().min(0).max(1_000_000).optional();
const OpenStreams = z.int().min(0).max(1_000_000).optional();

const IdlePolicy = z
  .strictObject({
    pauseAfterS: Seconds.optional().describe(
      "Pause an engine after so many seconds without use. Stored, not in use yet.",
    ),
    stopAfterS: Seconds.optional().describe(
      "Stop an engine after so many seconds without use. Stored, not in use yet.",
    ),
  })
  .optional()
  .describe("What happens to engines that nobody uses. Stored and checked, not in use yet.");

const ResourcePolicy = z
  .strictObject({
    memoryMb: z
      .int()
      .min(16)
      .max(16_777_216)
      .optional()
      .describe("Memory of a container, in MiB. Absent: ORCH_ENGINE_MEMORY_MB."),
    cpus: z
      .number()
      .min(0.01)
      .max(1_024)
      .optional()
      .describe("CPU cores of a container; fractions are allowed. Absent: ORCH_ENGINE_CPUS."),
    pids: z
      .int()
      .min(8)
      .max(4_194_304)
      .optional()
      .describe("Processes and threads of a container. Absent: ORCH_ENGINE_PIDS."),
    volumeMb: z
      .int()
      .min(1)
      .max(1_073_741_824)
      .optional()
      .describe(
        "Size of a volume, in MiB. Volumes are measured every five minutes; an engine over the limit gets no new turns. Applies to existing engines too. Absent: ORCH_ENGINE_VOLUME_MB.",
      ),
    readOnly: z
      .boolean()
      .optional()
      .describe("Whether a container's root file system is read-only. Absent: ORCH_ENGINE_READ_ONLY."),
  })
  .optional()
  .describe(
    "The limits of a container. They apply to containers that are made from now on. Absent: the installation's defaults.",
  );

/** The limits of a product and its engines. An absent value means unlimited, or the default of the installation. */
export const ProductPolicy = z
  .strictObject({
    maxEngines: z
      .int()
      .min(0)
      .max(1_000_000)
      .optional()
      .describe(
        "How many engines the product may have, in any status. Beyond it, provisions are refused with QUOTA_EXCEEDED. Absent: unlimited.",
      ),
    maxLiveTurns: LiveTurns.describe(
      "How many turns of the product may be live at once. Beyond it, new turns are refused with STREAM_LIMIT. Absent: ORCH_MAX_LIVE_TURNS.",
    ),
    maxLiveTurnsPerKey: LiveTurns.describe(
      "The same for the turns that one key has started. Absent: only the product's limit counts.",
    ),
    maxOpenStreams: OpenStreams.describe(
      "How many streams of turns the product may have open at once, at each replica. Beyond it, streams are refused with STREAM_LIMIT. Absent: ORCH_MAX_OPEN_STREAMS.",
    ),
    maxOpenStreamsPerKey: OpenStreams.describe(
      "The same for the streams of one key. Absent: only the product's limit counts.",
    ),
    turnLogBytesPerHour: z
      .int()
      .min(1)
      .max(1_099_511_627_776)
      .optional()
      .describe(
        "How many bytes of events the product's turns may log in an hour of the clock, in UTC. Beyond it, turns end with LOG_LIMIT, and new ones are refused with RATE_LIMITED. Absent: ORCH_TURN_LOG_BYTES_PER_HOUR.",
      ),
    rateLimitRpm: z
      .int()
      .min(1)
      .max(1_000_000_000)
      .optional()
      .describe(
        "How many calls the product's keys may make in a window of a minute, which begins with the first call. Absent: unlimited. Calls beyond it are RATE_LIMITED.",
      ),
    turnLimitRpm: z
      .int()
      .min(1)
      .max(1_000_000_000)
      .optional()
      .describe(
        "How many turns the product's keys may start in a window of a minute, which begins with the first start. Each start is also a call. Absent: unlimited. Starts beyond it are RATE_LIMITED.",
      ),
    idle: IdlePolicy,
    resources: ResourcePolicy,
    network: z
      .enum(["default", "internal"])
      .optional()
      .describe(
        "Where engines may connect to. `internal`: nowhere; they only answer calls. It applies to engines that are provisioned from now on, in Docker. Absent or `default`: the installation's network.",
      ),
    image: z
      .string()
      .max(500)
      .regex(/^\w[\w./:@-]*$/, { error: "must be the name of an image" })
      .optional()
      .describe("The image of new engines, pinned by a version tag or a digest. Absent: ORCH_ENGINE_IMAGE."),
  })
  .meta({
    id: "ProductPolicy",
    description:
      "The limits of a product and its engines. An absent limit is unlimited, or the installation's default.",
  });
export type ProductPolicy = z.infer<typeof ProductPolicy>;

/** The policy of a row. It was parsed before it was written. */
export function toPolicy(stored: unknown): ProductPolicy {
  return stored as ProductPolicy;
}

/** Throws IMAGE_NOT_PINNED for an image whose content may change. */
export function assertPinned(ctx: Pick<BaseContext, "config">, policy: ProductPolicy): void {
  if (policy.image === undefined || ctx.config.allowUnpinnedImage || isPinnedImage(policy.image)) return;
  const message = `the image "${policy.image}" is not pinned: name a version tag or a digest`;
  throw new DomainError("IMAGE_NOT_PINNED", message, { issues: [{ path: "policy.image", message }] });
}
