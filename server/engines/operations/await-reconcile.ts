import { findEngineById, type EngineRow } from "../../../db/engines.ts";
import type { BaseContext } from "../../context.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import { DomainError } from "../../errors.ts";
import { RuntimeFailure, type EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { ReconcileOutcome } from "../reconcile/reconcile-engine.ts";

export interface DriveInput {
  engineId: string;
  /** Milliseconds; undefined waits as long as the loop has something to do. */
  deadlineMs?: number | undefined;
}

type DriveContext = Pick<BaseContext, "db"> & { reconciler: Reconciler; runtime: EngineRuntime };

/**
 * Drives an engine and waits until nothing is left to do for now. undefined: the engine is gone. Throws
 * DEADLINE_EXCEEDED when the deadline passes first, RUNTIME_UNREACHABLE or RUNTIME_CHANGED when the runtime
 * cannot be asked; the work goes on either way.
 */
export async function awaitReconcile(ctx: DriveContext, input: DriveInput): Promise<EngineRow | undefined> {
  const outcome = await withinDeadline(ctx.reconciler.drive(input.engineId), input.deadlineMs);
  switch (outcome) {
    case "settled":
    case "gone":
      return findEngineById(ctx.db, input.engineId);
    case "unreachable":
      throw await toRuntimeError(ctx);
    case "refused":
      throw new DomainError(
        "RUNTIME_UNREACHABLE",
        "the runtime refused a step, which is tried again; its log says why",
        {
          retryAfterMs: 2_000,
        },
      );
    case "not_ours":
      throw new DomainError(
        "DEADLINE_EXCEEDED",
        "another replica is at work on this engine; the work goes on",
        {
          retryAfterMs: 1_000,
        },
      );
  }
}

/**
 * What is asked of the runtime before anything is written. Throws RUNTIME_UNREACHABLE or RUNTIME_CHANGED when it
 * could not carry out now what would be written.
 */
export async function askRuntime<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw toDomainError(error);
  }
}

async function toRuntimeError(ctx: { runtime: EngineRuntime }): Promise<unknown> {
  try {
    await ctx.runtime.check();
    return new DomainError("RUNTIME_UNREACHABLE", "the runtime did not answer in time; the work goes on", {
      retryAfterMs: 2_000,
    });
  } catch (error) {
    return toDomainError(error);
  }
}

function toDomainError(error: unknown): unknown {
  if (!(error instanceof RuntimeFailure)) return error;
  const reason = error.kind === "changed" ? "RUNTIME_CHANGED" : "RUNTIME_UNREACHABLE";
  const text =
    error.kind === "changed"
      ? "the runtime that answers is not the one that this installation's engines live on"
      : "the runtime does not answer";
  return new DomainError(reason, `${text}; what was asked for is carried out once it is back`, {
    retryAfterMs: 5_000,
    cause: error,
  });
}

async function withinDeadline(
  drive: Promise<ReconcileOutcome>,
  deadlineMs: number | undefined,
): Promise<ReconcileOutcome> {
  if (deadlineMs === undefined) return drive;
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(new DomainError("DEADLINE_EXCEEDED", `not done within ${deadlineMs} ms; the work goes on`));
  }, deadlineMs);
  try {
    return await Promise.race([drive, late.promise]);
  } finally {
    clearTimeout(timer);
    drive.catch(() => {
      // The caller is gone; the next pass meets the same trouble and logs it.
    });
  }
}
