import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { type IdempotentCall, runIdempotent } from "../../idempotency/run-idempotent.ts";
import type { CallContext } from "../../context.ts";
import type { AppContext } from "../../compose.ts";

/** The part of a tRPC resolver's options that `runOnce` uses. */
export interface Mutation<Input> {
  ctx: { call: AppContext & CallContext; idempotencyScope: string; productId?: string };
  input: Input;
  path: string;
}

export type WorkInput<Input> = Omit<Input, "idempotencyKey"> & { idempotency: IdempotencyRecord };

/** Runs a mutation's work under the idempotency key in its input. The work gets the rest of the input. */
export async function runOnce<Input extends { idempotencyKey?: string | undefined }, Reply>(
  { ctx, input, path }: Mutation<Input>,
  work: (input: WorkInput<Input>) => Promise<Reply>,
  onLost: IdempotentCall["onLost"] = "resume",
): Promise<Reply> {
  const { idempotencyKey: key, ...rest } = input;
  // An operator's idempotency keys are one scope for all products, so the product is part of the input.
  const fingerprinted = { product: ctx.productId ?? null, input: rest };
  const call = { scope: ctx.idempotencyScope, key, procedure: path, input: fingerprinted, onLost };
  return runIdempotent(ctx.call, call, async (idempotency) => work({ ...rest, idempotency }));
}
