import { findEngineById, type EngineRow } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import { DomainError } from "../../errors.ts";
import { RuntimeFailure, type EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { ReconcileOutcome } from "../reconcile/reconcile-engine.ts";

export interface AwaitReconcileInput {
  engineId: string;
  /** Milliseconds. undefined: until the engine is steady. */
  deadlineMs?: number | undefined;
}

type AwaitContext = Pick<BaseContext, "db"> & { reconciler: Reconciler; runtime: EngineRuntime };

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

async function toUnreachableError(ctx: { runtime: EngineRuntime }): Promise<unknown> {
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
  const options = { retryAfterMs: RUNTIME_RETRY_MS, cause: error };
  return error.kind === "changed"
    ? new DomainError(
        "RUNTIME_CHANGED",
        `this runtime does not have this installation's engines: ${advice}`,
        options,
      )
    : new DomainError("RUNTIME_UNREACHABLE", `the runtime does not answer: ${advice}`, options);
}

async function withinDeadline(
  reconcile: Promise<ReconcileOutcome>,
  deadlineMs: number | undefined,
): Promise<ReconcileOutcome> {
  if (deadlineMs === undefined) return reconcile;
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const message = `the engine is not steady after ${deadlineMs} ms: the work continues, call again to wait for it`;
    late.reject(new DomainError("DEADLINE_EXCEEDED", message));
  }, deadlineMs);
  try {
    return await Promise.race([reconcile, late.promise]);
  } finally {
    clearTimeout(timer);
    reconcile.catch(() => {
      // The caller has its answer. The next resync meets the same error and logs it.
    });
  }
}
