import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { type IdempotentCall, runIdempotent } from "../../idempotency/run-idempotent.ts";
import type { CallContext } from "../../context.ts";
import type { AppContext } from "../../compose.ts";

/** The part of a tRPC resolver's options that `runOnce` uses. */
export interface Mutation {
  ctx: { call: AppContext & CallContext; idempotencyScope: string; productId?: string };
  input: { idempotencyKey?: string | undefined };
  path: string;
}

/** An operation gets the input without the key, the idempotency record, and the product that the caller acts for. */
export type Operation<Call extends Mutation, Reply> = (
  ctx: AppContext & CallContext,
  input: Omit<Call["input"], "idempotencyKey"> &
    Pick<Call["ctx"], keyof Call["ctx"] & "productId"> & { idempotency: IdempotencyRecord },
) => Promise<Reply>;

/** Runs a mutation's operation under the idempotency key in its input. */
export async function runOnce<Call extends Mutation, Reply>(
  { ctx, input, path }: Call,
  operation: Operation<Call, Reply>,
  onLost: IdempotentCall["onLost"] = "resume",
): Promise<Reply> {
  const { idempotencyKey: key, ...rest } = input;
  const { productId } = ctx;
  // An operator's idempotency keys are one scope for all products, so the product is part of the input.
  const fingerprinted = { product: productId ?? null, input: rest };
  const call = { scope: ctx.idempotencyScope, key, procedure: path, input: fingerprinted, onLost };
  return runIdempotent(ctx.call, call, async (idempotency) => {
    const known = productId === undefined ? { ...rest, idempotency } : { ...rest, productId, idempotency };
    return operation(ctx.call, known as Parameters<typeof operation>[1]);
  });
}
