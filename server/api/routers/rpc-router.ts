import { z } from "zod";
import { callEngine } from "../../rpc/call-engine.ts";
import { callOperation, OPERATIONS } from "../../rpc/call-operation.ts";
import { findUnknownOutcome } from "../../engine-contract/unknown-outcome.ts";
import { Generation, IdempotencyKey, JsonObject, plainText, TimeoutMs, UserId } from "./field-schemas.ts";
import { platformProcedure } from "../trpc/procedures.ts";
import { type Mutation, type Operation, runOnce } from "../trpc/run-once.ts";

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

// A plain record, because `t.router` refuses the name `call`. The root router accepts it as a nested router.
export const rpcRouter = {
  call: mutationProcedure
    .input(Call)
    .output(Answer)
    .mutation(async (opts) => sendOnce(opts, callEngine)),
  setConfig: mutationProcedure
    .input(SetConfig)
    .output(OPERATIONS.setConfig.result)
    .mutation(async (opts) =>
      sendOnce(opts, async (ctx, { productId, userId, config }) =>
        callOperation(ctx, OPERATIONS.setConfig, { productId, userId, params: { config } }),
      ),
    ),
  reload: mutationProcedure
    .input(Reload)
    .output(OPERATIONS.reload.result)
    .mutation(async (opts) =>
      sendOnce(opts, async (ctx, { productId, userId }) =>
        callOperation(ctx, OPERATIONS.reload, { productId, userId }),
      ),
    ),
  getConfig: readProcedure
    .output(OPERATIONS.getConfig.result)
    .query(async ({ ctx, input, signal }) =>
      callOperation(ctx.call, OPERATIONS.getConfig, { ...input, productId: ctx.productId, signal }),
    ),
  quotaState: readProcedure
    .output(OPERATIONS.quotaState.result)
    .query(async ({ ctx, input, signal }) =>
      callOperation(ctx.call, OPERATIONS.quotaState, { ...input, productId: ctx.productId, signal }),
    ),
  cacheState: readProcedure
    .output(OPERATIONS.cacheState.result)
    .query(async ({ ctx, input, signal }) =>
      callOperation(ctx.call, OPERATIONS.cacheState, { ...input, productId: ctx.productId, signal }),
    ),
};

/**
 * `runOnce` for calls that have an effect in the engine. If the effect is unknown, OUTCOME_UNKNOWN is stored under the
 * idempotency key, so that a retry gets it and sends nothing again. The first caller gets the original error.
 */
async function sendOnce<Call extends Mutation, Reply>(
  mutation: Call,
  operation: Operation<Call, Reply>,
): Promise<Reply> {
  let lost: unknown;
  const send: typeof operation = async (ctx, input) => {
    try {
      return await operation(ctx, input);
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
