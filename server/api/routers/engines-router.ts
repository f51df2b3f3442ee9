import { z } from "zod";
import { ENGINE_STATUSES } from "../../../db/schema.ts";
import { admitEngine } from "../../engines/operations/admit-engine.ts";
import { destroyEngine } from "../../engines/operations/destroy-engine.ts";
import { getEngine } from "../../engines/operations/get-engine.ts";
import { listEngines } from "../../engines/operations/list-engines.ts";
import { provisionEngine } from "../../engines/operations/provision-engine.ts";
import { restartEngine } from "../../engines/operations/restart-engine.ts";
import { startEngine } from "../../engines/operations/start-engine.ts";
import { stopEngine } from "../../engines/operations/stop-engine.ts";
import { getProductPolicy } from "../../products/get-product.ts";
import {
  AdmittedEngine,
  DestroyedEngine,
  EnginePage,
  EngineSchema,
  ProvisionedEngine,
} from "./engine-schemas.ts";
import {
  Cursor,
  DeadlineMs,
  IdempotencyKey,
  Limit,
  plainText,
  UserId,
  WhenBusySchema,
} from "./field-schemas.ts";
import { BOOTING, OPERATING } from "./reason-groups.ts";
import { platformProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const Provision = z.strictObject({
  userId: UserId,
  image: plainText(512)
    .optional()
    .describe(
      "The image to run: the installation's default, the image of the product's policy, or one of ORCH_ENGINE_IMAGE_ALLOW. Without it, the policy's image, or else the default.",
    ),
  wait: z
    .boolean()
    .default(true)
    .describe(
      "Wait until the engine is ready. false: answer once the engine is on record, in `provisioning`.",
    ),
  deadlineMs: DeadlineMs.optional().describe(
    "How long to wait, in milliseconds. After it, the reply has the engine in `provisioning`, and the boot goes on. Without it, the call waits until the boot has ended.",
  ),
  idempotencyKey: IdempotencyKey,
});
const Admit = z.strictObject({
  userId: UserId,
  autoProvision: z
    .boolean()
    .default(false)
    .describe(
      "Make the engine if the user has none. The call does not wait for its boot: it answers `engine_provisioning`. The key needs the scope `lifecycle`, too.",
    ),
  autoWake: z.boolean().default(false).describe("Has no effect until engines can sleep."),
});
const Get = z.strictObject({ userId: UserId });
const List = z
  .strictObject({
    status: z
      .enum(ENGINE_STATUSES)
      .optional()
      .describe("Only engines of this status. Without it, engines of every status."),
    cursor: Cursor,
    limit: Limit,
  })
  .prefault({});
const Start = z.strictObject({
  userId: UserId,
  deadlineMs: DeadlineMs.optional().describe(
    "How long the call waits, in milliseconds. After it, the call fails with DEADLINE_EXCEEDED, and the boot goes on. Without it, the call waits until the boot has ended.",
  ),
  idempotencyKey: IdempotencyKey,
});
/** For the operations that end an engine's process, and so must deal with its holds. */
const interrupting = {
  userId: UserId,
  whenBusy: WhenBusySchema.default("wait").describe(
    "What to do while turns and calls use the engine. `wait`: new ones wait, the present ones are interrupted after `deadlineMs`. `interrupt`: interrupt them at once. `reject`: fail with ENGINE_BUSY.",
  ),
  deadlineMs: DeadlineMs.default(60_000).describe(
    "How long `wait` lets the present turns and calls go on, in milliseconds. The operation itself is waited for after that.",
  ),
  idempotencyKey: IdempotencyKey,
};
const Stop = z.strictObject({
  ...interrupting,
  graceSeconds: z
    .int()
    .min(0)
    .max(3_600)
    .default(30)
    .describe("How long the engine has between SIGTERM and SIGKILL, in seconds."),
});
const Interrupting = z.strictObject(interrupting);

const reading = platformProcedure("read");
const changing = platformProcedure("lifecycle");

export const enginesRouter = t.router({
  provision: changing
    .meta({
      summary: "Makes a user's engine, and returns it with its key.",
      description:
        "The call waits for the first boot. If the wait ends early, the reply still has the key, and the boot goes on. After a failed first boot, provision again with a new idempotency key.",
      reasons: [
        ...BOOTING,
        "ENGINE_ALREADY_EXISTS",
        "IMAGE_NOT_ALLOWED",
        "IMAGE_NOT_PINNED",
        "PRODUCT_NOT_FOUND",
        "QUOTA_EXCEEDED",
      ],
    })
    .input(Provision)
    .output(ProvisionedEngine)
    .mutation(async (opts) => {
      const { call, productId } = opts.ctx;
      const policy = await getProductPolicy(call, { productId });
      return runOnce(opts, async (context, input) => provisionEngine(context, { ...input, policy }));
    }),
  admit: platformProcedure("turns")
    .meta({
      admitsEngine: true,
      summary: "Says whether a user's engine takes calls now, and returns it if it does.",
      description:
        "For gateways, before they work for a user: key, scope, rate limit and engine in one round trip to the database. It takes no idempotency key, because a repeated call has the effect of one.",
      reasons: [
        "ENGINE_DESTROYING",
        "IMAGE_NOT_ALLOWED",
        "IMAGE_NOT_PINNED",
        "PORT_EXHAUSTION",
        "QUOTA_EXCEEDED",
        "RUNTIME_CHANGED",
        "RUNTIME_UNREACHABLE",
      ],
    })
    .input(Admit)
    .output(AdmittedEngine)
    .mutation(async ({ ctx, input: { autoWake: _autoWake, ...input } }) =>
      admitEngine(ctx.call, { ...input, productId: ctx.productId, engine: ctx.engine }),
    ),
  get: reading
    .meta({ summary: "Returns a user's engine.", reasons: ["ENGINE_NOT_FOUND"] })
    .input(Get)
    .output(EngineSchema)
    .query(async ({ ctx, input }) => getEngine(ctx.call, { ...input, productId: ctx.productId })),
  list: reading
    .meta({
      summary: "Lists the product's engines.",
      description:
        "In the order in which they were provisioned. Engines that are made meanwhile do not shift the pages.",
    })
    .input(List)
    .output(EnginePage)
    .query(async ({ ctx, input }) => listEngines(ctx.call, { ...input, productId: ctx.productId })),
  start: changing
    .meta({
      summary: "Starts a user's engine, and waits until it is ready.",
      description: "An engine that runs is a success. A failed engine gets a fresh budget of restarts.",
      reasons: BOOTING,
    })
    .input(Start)
    .output(EngineSchema)
    .mutation(async (opts) => runOnce(opts, startEngine)),
  stop: changing
    .meta({
      summary: "Stops a user's engine, and keeps its data.",
      description: "A stopped engine is a success.",
      reasons: [...OPERATING, "ENGINE_BUSY"],
    })
    .input(Stop)
    .output(EngineSchema)
    .mutation(async (opts) => runOnce(opts, stopEngine)),
  restart: changing
    .meta({
      summary: "Replaces the process of a user's engine: its generation grows.",
      reasons: [...BOOTING, "ENGINE_BUSY"],
    })
    .input(Interrupting)
    .output(EngineSchema)
    .mutation(async (opts) => runOnce(opts, restartEngine)),
  destroy: changing
    .meta({
      summary: "Destroys a user's engine with all its data.",
      description: "When the reply comes, container, volume, port and key are gone.",
      reasons: [...OPERATING, "ENGINE_BUSY"],
    })
    .input(Interrupting)
    .output(DestroyedEngine)
    .mutation(async (opts) => runOnce(opts, destroyEngine)),
});
