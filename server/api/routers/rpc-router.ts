import { z } from "zod";
import { callEngine } from "../../rpc/call-engine.ts";
import { toJsonText, withSource } from "../../json/json-text.ts";
import { callOperation, OPERATIONS } from "../../rpc/call-operation.ts";
import type { RpcContext } from "../../rpc/rpc-context.ts";
import { Generation, IdempotencyKey, JsonObject, plainText, TimeoutMs, UserId } from "./field-schemas.ts";
import { readStoredText, toStoredText } from "./stored-text.ts";
import type { StandIns } from "../trpc/stand-ins.ts";
import { platformProcedure } from "../trpc/procedures.ts";
import { sendOnce } from "../trpc/send-once.ts";

const Call = z.strictObject({
  userId: UserId,
  method: plainText(200),
  params: JsonObject.default({}),
  timeoutMs: TimeoutMs.default(30_000),
  /** Has no effect until engines can sleep. */
  autoWake: z.boolean().default(true),
  expectGeneration: Generation.optional(),
  idempotencyKey: IdempotencyKey,
});
const Answer = z.object({ result: z.unknown(), generation: z.number() });
const SetConfig = z.strictObject({ userId: UserId, config: JsonObject, idempotencyKey: IdempotencyKey });
const Reload = z.strictObject({ userId: UserId, idempotencyKey: IdempotencyKey });

const procedure = platformProcedure("rpc");
const readProcedure = procedure.input(z.strictObject({ userId: UserId }));
const mutationProcedure = procedure.meta({ reachesEngine: true });

/** Types a stand-in as the operation's result, whose shape `callOperation` has checked. */
function standInFor<Schema extends z.ZodType>(_operation: { result: Schema }) {
  return z.string().transform((standIn) => standIn as unknown as z.output<Schema>);
}

// A plain record, because `t.router` refuses the name `call`. The root router accepts it as a nested router.
export const rpcRouter = {
  call: mutationProcedure
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
    .input(Reload)
    .output(standInFor(OPERATIONS.reload))
    .mutation(async (opts) => {
      const reply = await sendOnce(opts, async (ctx, { productId, userId }) =>
        toStoredText(await callOperation(ctx, OPERATIONS.reload, { productId, userId })),
      );
      return opts.ctx.standIns.add(readStoredText(reply));
    }),
  getConfig: readProcedure
    .output(standInFor(OPERATIONS.getConfig))
    .query(async (opts) => readOperation(opts, OPERATIONS.getConfig)),
  quotaState: readProcedure
    .output(standInFor(OPERATIONS.quotaState))
    .query(async (opts) => readOperation(opts, OPERATIONS.quotaState)),
  cacheState: readProcedure
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
