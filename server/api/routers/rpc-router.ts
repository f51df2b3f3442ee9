import { z } from "zod";
import { callEngine } from "../../rpc/call-engine.ts";
import { callOperation, OPERATIONS } from "../../rpc/call-operation.ts";
import { findUnknownOutcome } from "../../engine-contract/unknown-outcome.ts";
import { Generation, IdempotencyKey, JsonObject, plainText, TimeoutMs, UserId } from "./field-schemas.ts";
import { platformProcedure } from "../trpc/procedures.ts";
import { type Mutation, runOnce, type WorkInput } from "../trpc/run-once.ts";

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
const OfUser = z.strictObject({ userId: UserId });
const SetConfig = z.strictObject({ userId: UserId, config: JsonObject, idempotencyKey: IdempotencyKey });
const Reload = z.strictObject({ userId: UserId, idempotencyKey: IdempotencyKey });

const procedure = platformProcedure("rpc");
const mutationProcedure = procedure.meta({ reachesEngine: true });

// A plain record, because `t.router` refuses the name `call`. The root router accepts it as a nested router.
export const rpcRouter = {
  call: mutationProcedure
    .input(Call)
    .output(Answer)
    .mutation(async (opts) => {
      const { call, productId } = opts.ctx;
      return sendOnce(opts, async (input) => callEngine(call, { ...input, productId }));
    }),
  setConfig: mutationProcedure
    .input(SetConfig)
    .output(OPERATIONS.setConfig.result)
    .mutation(async (opts) => {
      const { call, productId } = opts.ctx;
      return sendOnce(opts, async ({ userId, config }) =>
        callOperation(call, OPERATIONS.setConfig, { userId, productId, params: { config } }),
      );
    }),
  reload: mutationProcedure
    .input(Reload)
    .output(OPERATIONS.reload.result)
    .mutation(async (opts) => {
      const { call, productId } = opts.ctx;
      return sendOnce(opts, async (input) => callOperation(call, OPERATIONS.reload, { ...input, productId }));
    }),
  getConfig: procedure
    .input(OfUser)
    .output(OPERATIONS.getConfig.result)
    .query(async ({ ctx, input, signal }) =>
      callOperation(ctx.call, OPERATIONS.getConfig, { ...input, productId: ctx.productId, signal }),
    ),
  quotaState: procedure
    .input(OfUser)
    .output(OPERATIONS.quotaState.result)
    .query(async ({ ctx, input, signal }) =>
      callOperation(ctx.call, OPERATIONS.quotaState, { ...input, productId: ctx.productId, signal }),
    ),
  cacheState: procedure
    .input(OfUser)
    .output(OPERATIONS.cacheState.result)
    .query(async ({ ctx, input, signal }) =>
      callOperation(ctx.call, OPERATIONS.cacheState, { ...input, productId: ctx.productId, signal }),
    ),
};

/**
 * `runOnce` for calls that have an effect in the engine. If the effect is unknown, OUTCOME_UNKNOWN is stored under the
 * idempotency key, so that a retry gets it and sends nothing again. The first caller gets the original error.
 */
async function sendOnce<Input extends { idempotencyKey?: string | undefined }, Reply>(
  mutation: Mutation<Input>,
  work: (input: WorkInput<Input>) => Promise<Reply>,
): Promise<Reply> {
  let lost: unknown;
  const send = async (input: WorkInput<Input>) => {
    try {
      return await work(input);
    } catch (error) {
      const unknown = findUnknownOutcome(error);
      if (unknown) lost = error;
      throw unknown ?? error;
    }
  };
  try {
    return await runOnce(mutation, send, "outcome_unknown");
  } catch (error) {
    throw lost ?? error;
  }
}
