import { z } from "zod";
import { callEngine } from "../../rpc/call-engine.ts";
import { toJsonText, withSource } from "../../json/json-text.ts";
import { callOperation, OPERATIONS } from "../../rpc/call-operation.ts";
import type { RpcContext } from "../../rpc/rpc-context.ts";
import {
  ExpectGeneration,
  IdempotencyKey,
  JsonObject,
  plainText,
  TimeoutMs,
  UserId,
} from "./field-schemas.ts";
import { shownAs } from "./shown-as.ts";
import { CALLING } from "./reason-groups.ts";
import { readStoredText, toStoredText } from "./stored-text.ts";
import type { StandIns } from "../trpc/stand-ins.ts";
import { platformProcedure } from "../trpc/procedures.ts";
import { sendOnce } from "../trpc/send-once.ts";

const Call = z.strictObject({
  userId: UserId,
  method: plainText(200).describe("The operation of the engine's `/rpc`. It goes to the engine unchanged."),
  params: JsonObject.default({}).describe(
    "The parameters of the operation: a JSON object that nests at most 64 levels deep. It goes to the engine as you wrote it, numbers too.",
  ),
  timeoutMs: TimeoutMs.default(30_000).describe(
    "How long the whole call may take, in milliseconds: the wait for the engine, and its answer.",
  ),
  autoWake: z.boolean().default(true).describe("Has no effect until engines can sleep."),
  expectGeneration: ExpectGeneration,
  idempotencyKey: IdempotencyKey,
});
const Answer = z.object({
  result: z
    .unknown()
    .describe("What the engine answered, any JSON. It arrives as the engine wrote it, numbers too."),
  generation: z.int().describe("The generation of the engine that answered."),
});
const SetConfig = z.strictObject({
  userId: UserId,
  config: JsonObject.describe(
    "The new gateway config as a whole: a JSON object that nests at most 64 levels deep. It goes to the engine as you wrote it.",
  ),
  idempotencyKey: IdempotencyKey,
});
const Reload = z.strictObject({ userId: UserId, idempotencyKey: IdempotencyKey });

const procedure = platformProcedure("rpc");
const readProcedure = procedure.meta({ reasons: CALLING }).input(z.strictObject({ userId: UserId }));
const mutationProcedure = procedure.meta({ reachesEngine: true });

/** Types a stand-in as the operation's result, whose shape `callOperation` has checked. */
function standInFor<Schema extends z.ZodType>(operation: { result: Schema }) {
  const toResult = (standIn: string) => standIn as unknown as z.output<Schema>;
  return z.string().transform(toResult).meta(shownAs(operation.result));
}

// A plain record, because `t.router` refuses the name `call`. The root router accepts it as a nested router.
export const rpcRouter = {
  call: mutationProcedure
    .meta({
      summary: "Makes one call to the `/rpc` of a user's engine.",
      description:
        "The call is sent once. If its answer is lost, the reason is OUTCOME_UNKNOWN: the engine may have acted. The same idempotency key never sends it again.",
      reasons: [...CALLING, "OUTCOME_UNKNOWN"],
    })
    .input(Call)
    .output(Answer)
    .mutation(async (opts) => {
      const reply = await sendOnce(opts, async (ctx, input) => {
        const { result, generation } = await callEngine(ctx, input);
        return { ...toStoredText(result.json), generation };
      });
      return { result: opts.ctx.standIns.add(readStoredText(reply)), generation: reply.generation };
    }),
  setConfig: mutationProcedure
    .meta({
      summary: "Replaces the gateway config of a user's engine.",
      reasons: [...CALLING, "OUTCOME_UNKNOWN"],
    })
    .input(SetConfig)
    .output(standInFor(OPERATIONS.setConfig))
    .mutation(async (opts) => {
      const reply = await sendOnce(opts, async (ctx, { productId, userId, config }) => {
        const params = withSource({ config }, `{"config":${toJsonText(config)}}`);
        return toStoredText(await callOperation(ctx, OPERATIONS.setConfig, { productId, userId, params }));
      });
      return opts.ctx.standIns.add(readStoredText(reply));
    }),
  reload: mutationProcedure
    .meta({
      summary: "Makes a user's engine read its config file again.",
      reasons: [...CALLING, "OUTCOME_UNKNOWN"],
    })
    .input(Reload)
    .output(standInFor(OPERATIONS.reload))
    .mutation(async (opts) => {
      const reply = await sendOnce(opts, async (ctx, { productId, userId }) =>
        toStoredText(await callOperation(ctx, OPERATIONS.reload, { productId, userId })),
      );
      return opts.ctx.standIns.add(readStoredText(reply));
    }),
  getConfig: readProcedure
    .meta({ summary: "Returns the gateway config of a user's engine." })
    .output(standInFor(OPERATIONS.getConfig))
    .query(async (opts) => readOperation(opts, OPERATIONS.getConfig)),
  quotaState: readProcedure
    .meta({ summary: "Returns what a user's engine has used of its quota." })
    .output(standInFor(OPERATIONS.quotaState))
    .query(async (opts) => readOperation(opts, OPERATIONS.quotaState)),
  cacheState: readProcedure
    .meta({ summary: "Returns how well the prompt cache of a user's engine works." })
    .output(standInFor(OPERATIONS.cacheState))
    .query(async (opts) => readOperation(opts, OPERATIONS.cacheState)),
};

interface Read {
  ctx: { call: RpcContext; productId: string; standIns: StandIns };
  input: { userId: string };
  signal: AbortSignal | undefined;
}

type ReadOperation = Parameters<typeof callOperation>[1];

async function readOperation({ ctx, input, signal }: Read, operation: ReadOperation): Promise<string> {
  const { productId, standIns } = ctx;
  return standIns.add(await callOperation(ctx.call, operation, { ...input, productId, signal }));
}
