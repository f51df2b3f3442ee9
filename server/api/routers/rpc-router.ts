import { z } from "zod";
import { callEngine } from "../../rpc/call-engine.ts";
import { getCacheState } from "../../rpc/get-cache-state.ts";
import { getConfig } from "../../rpc/get-config.ts";
import { getQuotaState } from "../../rpc/get-quota-state.ts";
import { CacheState, GatewayConfig, QuotaState, ReloadedConfig } from "../../rpc/operation-results.ts";
import { reloadConfig } from "../../rpc/reload-config.ts";
import { setConfig } from "../../rpc/set-config.ts";
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
    .output(GatewayConfig)
    .mutation(async (opts) => {
      const { call, productId } = opts.ctx;
      return sendOnce(opts, async (input) => setConfig(call, { ...input, productId }));
    }),
  reload: mutationProcedure
    .input(Reload)
    .output(ReloadedConfig)
    .mutation(async (opts) => {
      const { call, productId } = opts.ctx;
      return sendOnce(opts, async (input) => reloadConfig(call, { ...input, productId }));
    }),
  getConfig: procedure
    .input(OfUser)
    .output(GatewayConfig)
    .query(async ({ ctx, input, signal }) =>
      getConfig(ctx.call, { ...input, productId: ctx.productId, signal }),
    ),
  quotaState: procedure
    .input(OfUser)
    .output(QuotaState)
    .query(async ({ ctx, input, signal }) =>
      getQuotaState(ctx.call, { ...input, productId: ctx.productId, signal }),
    ),
  cacheState: procedure
    .input(OfUser)
    .output(CacheState)
    .query(async ({ ctx, input, signal }) =>
      getCacheState(ctx.call, { ...input, productId: ctx.productId, signal }),
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
