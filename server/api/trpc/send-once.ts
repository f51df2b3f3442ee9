import { findUnknownOutcome } from "../../engine-contract/unknown-outcome.ts";
import { type Mutation, type Operation, runOnce } from "./run-once.ts";

/**
 * `runOnce` for calls that have an effect in the engine. If the effect is unknown, OUTCOME_UNKNOWN is stored under the
 * idempotency key, so that a retry gets it and sends nothing again. The first caller gets the original error.
 */
export async function sendOnce<Call extends Mutation, Reply>(
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
