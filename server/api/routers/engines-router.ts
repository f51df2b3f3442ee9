import { z } from "zod";
import { ENGINE_STATUSES } from "../../../db/schema.ts";
import { destroyEngine } from "../../engines/operations/destroy-engine.ts";
import { getEngine } from "../../engines/operations/get-engine.ts";
import { listEngines } from "../../engines/operations/list-engines.ts";
import { provisionEngine } from "../../engines/operations/provision-engine.ts";
import { restartEngine } from "../../engines/operations/restart-engine.ts";
import { startEngine } from "../../engines/operations/start-engine.ts";
import { stopEngine } from "../../engines/operations/stop-engine.ts";
import { getProduct } from "../../products/get-product.ts";
import { DestroyedEngine, EnginePage, EngineSchema, ProvisionedEngine } from "./engine-schemas.ts";
import {
  Cursor,
  DeadlineMs,
  IdempotencyKey,
  Limit,
  plainText,
  UserId,
  WhenBusySchema,
} from "./field-schemas.ts";
import { platformProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const Provision = z.strictObject({
  userId: UserId,
  image: plainText(512).optional(),
  wait: z.boolean().default(true),
  deadlineMs: DeadlineMs.optional(),
  idempotencyKey: IdempotencyKey,
});
const Get = z.strictObject({ userId: UserId });
const List = z
  .strictObject({ status: z.enum(ENGINE_STATUSES).optional(), cursor: Cursor, limit: Limit })
  .prefault({});
const Start = z.strictObject({
  userId: UserId,
  deadlineMs: DeadlineMs.optional(),
  idempotencyKey: IdempotencyKey,
});
/** For the operations that end an engine's process, and so must deal with its holds. */
const interrupting = {
  userId: UserId,
  whenBusy: WhenBusySchema.default("wait"),
  deadlineMs: DeadlineMs.default(60_000),
  idempotencyKey: IdempotencyKey,
};
const Stop = z.strictObject({ ...interrupting, graceSeconds: z.int().min(0).max(3_600).default(30) });
const Interrupting = z.strictObject(interrupting);

const reading = platformProcedure("read");
const changing = platformProcedure("lifecycle");

export const enginesRouter = t.router({
  provision: changing
    .input(Provision)
    .output(ProvisionedEngine)
    .mutation(async (opts) => {
      const { call, productId } = opts.ctx;
      const { policy } = await getProduct(call, { productId });
      return runOnce(opts, async (context, input) => provisionEngine(context, { ...input, policy }));
    }),
  get: reading
    .input(Get)
    .output(EngineSchema)
    .query(async ({ ctx, input }) => getEngine(ctx.call, { ...input, productId: ctx.productId })),
  list: reading
    .input(List)
    .output(EnginePage)
    .query(async ({ ctx, input }) => listEngines(ctx.call, { ...input, productId: ctx.productId })),
  start: changing
    .input(Start)
    .output(EngineSchema)
    .mutation(async (opts) => runOnce(opts, startEngine)),
  stop: changing
    .input(Stop)
    .output(EngineSchema)
    .mutation(async (opts) => runOnce(opts, stopEngine)),
  restart: changing
    .input(Interrupting)
    .output(EngineSchema)
    .mutation(async (opts) => runOnce(opts, restartEngine)),
  destroy: changing
    .input(Interrupting)
    .output(DestroyedEngine)
    .mutation(async (opts) => runOnce(opts, destroyEngine)),
});
