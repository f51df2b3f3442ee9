import { findEngineById, type EngineRow } from "../../../db/engines.ts";
import { DomainError } from "../../errors.ts";
import { RuntimeFailure } from "../../runtime/engine-runtime.ts";
import { abortable } from "../../time/abortable.ts";
import type { ReconcileOutcome } from "../reconcile/reconcile-engine.ts";
import type { OperationContext } from "./operation-context.ts";

export interface AwaitReconcileInput {
  engineId: string;
  /** Milliseconds. undefined: until the engine is steady. */
  deadlineMs?: number | undefined;
}

type AwaitContext = Pick<OperationContext, "db" | "reconciler" | "runtime">;

const RUNTIME_RETRY_MS = 5_000;

/**
 * Reconciles an engine until it is steady, and returns its row. undefined: the engine is gone. Throws DEADLINE_EXCEEDED,
 * RUNTIME_UNREACHABLE or RUNTIME_CHANGED; reconcile continues all the same.
 */
export async function awaitReconcile(
  ctx: AwaitContext,
  input: AwaitReconcileInput,
): Promise<EngineRow | undefined> {
  const outcome = await withinDeadline(ctx.reconciler.reconcile(input.engineId), input.deadlineMs);
  switch (outcome) {
    case "steady":
    case "gone":
      return findEngineById(ctx.db, input.engineId);
    case "unreachable":
      throw await toUnreachableError(ctx);
    case "refused":
      throw new DomainError(
        "RUNTIME_UNREACHABLE",
        "the runtime refused a step, which is tried again: look for the cause in the service's log",
        { retryAfterMs: 2_000 },
      );
    case "no_lease":
      throw new DomainError(
        "DEADLINE_EXCEEDED",
        "another replica reconciles this engine: the work continues, call again to wait for it",
        { retryAfterMs: 1_000 },
      );
  }
}

/**
 * Makes a runtime call that an operation needs before it records anything. Throws RUNTIME_UNREACHABLE or
 * RUNTIME_CHANGED.
 */
export async function callRuntime<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw toDomainError(error, "nothing has changed, call again later");
  }
}

async function toUnreachableError(ctx: Pick<AwaitContext, "runtime">): Promise<unknown> {
  try {
    await ctx.runtime.check();
    return new DomainError(
      "RUNTIME_UNREACHABLE",
      "the runtime did not answer in time: the work continues, call again to wait for it",
      { retryAfterMs: 2_000 },
    );
  } catch (error) {
    return toDomainError(error, "the work continues once the right runtime answers");
  }
}

function toDomainError(error: unknown, advice: string): unknown {
  if (!(error instanceof RuntimeFailure)) return error;
  const [reason, problem] =
    error.kind === "changed"
      ? (["RUNTIME_CHANGED", "this runtime does not have this installation's engines"] as const)
      : (["RUNTIME_UNREACHABLE", "the runtime does not answer"] as const);
  return new DomainError(reason, `${problem}: ${advice}`, { retryAfterMs: RUNTIME_RETRY_MS, cause: error });
}

async function withinDeadline(
  reconcile: Promise<ReconcileOutcome>,
  deadlineMs: number | undefined,
): Promise<ReconcileOutcome> {
  if (deadlineMs === undefined) return reconcile;
  const timeout = AbortSignal.timeout(deadlineMs);
  try {
    return await abortable(reconcile, timeout);
  } catch (error) {
    if (error !== timeout.reason) throw error;
    // Nothing waits for the work any more. If it fails, the next resync meets the same error and logs it.
    const message = `the engine is not steady after ${deadlineMs} ms: the work continues, call again to wait for it`;
    throw new DomainError("DEADLINE_EXCEEDED", message);
  }
}
