import { findEngineById, type EngineRow } from "../../../db/engines.ts";
import { DomainError } from "../../errors.ts";
import { explainTampering } from "../../keys/tampered-row.ts";
import { RuntimeFailure } from "../../runtime/engine-runtime.ts";
import { abortable } from "../../time/abortable.ts";
import { findStatusReasonCode } from "../model/engine-status.ts";
import type { ReconcileOutcome } from "../reconcile/reconcile-engine.ts";
import type { OperationContext } from "./operation-context.ts";

export interface AwaitReconcileInput {
  engineId: string;
  /** Milliseconds. undefined: until the engine is steady. */
  deadlineMs?: number | undefined;
}

type AwaitContext = Pick<OperationContext, "db" | "reconciler" | "runtime">;

const DEADLINE_RETRY_MS = 1_000;
const RUNTIME_RETRY_MS = 5_000;
const REFUSED_RETRY_MS = 2_000;
const MIN_CALL_MS = 2_000;
/** What callers may rely on once their request is on record. */
const CONTINUES = "the request is on record and is carried out once";
const HOW_TO_WAIT = "the same call with the same idempotency key waits for it";

/**
 * Reconciles an engine until it is steady, and returns its row. undefined: the engine is gone. Throws DEADLINE_EXCEEDED,
 * RUNTIME_UNREACHABLE, RUNTIME_CHANGED, ROW_TAMPERED, or what `toRefusedError` makes; reconcile continues all the same.
 */
export async function awaitReconcile(
  ctx: AwaitContext,
  input: AwaitReconcileInput,
): Promise<EngineRow | undefined> {
  const reconcile = ctx.reconciler.reconcile(input.engineId);
  const { deadlineMs } = input;
  // Nothing waits for the work after the deadline. If it fails, the next resync meets the same error and logs it.
  const outcome: ReconcileOutcome = await withinDeadline(reconcile, deadlineMs, () => {
    const problem = `the engine is not steady after ${deadlineMs} ms: the work continues, and ${HOW_TO_WAIT}`;
    return new DomainError("DEADLINE_EXCEEDED", problem, { retryAfterMs: DEADLINE_RETRY_MS });
  });
  switch (outcome) {
    case "steady":
    case "gone":
      return findEngineById(ctx.db, input.engineId);
    case "unreachable":
      throw await toUnreachableError(ctx);
    case "refused":
      throw toRefusedError(await findEngineById(ctx.db, input.engineId));
    case "tampered":
      // The reconcile has reported the row.
      throw new DomainError("ROW_TAMPERED", explainTampering("engines", input.engineId));
    case "no_lease":
      throw new DomainError(
        "DEADLINE_EXCEEDED",
        `another replica reconciles this engine: the work continues, and ${HOW_TO_WAIT}`,
        { retryAfterMs: 1_000 },
      );
  }
}

/**
 * Makes the runtime calls that an operation needs before it records anything. Throws RUNTIME_UNREACHABLE or
 * RUNTIME_CHANGED. A caller's short deadline is for the work, so each call gets `MIN_CALL_MS`.
 */
export async function callRuntime<T>(call: () => Promise<T>, deadlineMs?: number): Promise<T> {
  const timeoutMs = deadlineMs === undefined ? undefined : Math.max(MIN_CALL_MS, deadlineMs);
  try {
    return await withinDeadline(
      call(),
      timeoutMs,
      () => new RuntimeFailure("unreachable", "no answer in time"),
    );
  } catch (error) {
    throw toRuntimeError(error, "nothing was written, so call again later");
  }
}

async function toUnreachableError(ctx: Pick<AwaitContext, "runtime">): Promise<unknown> {
  try {
    await ctx.runtime.check();
    return new DomainError(
      "RUNTIME_UNREACHABLE",
      `the runtime did not answer in time: ${CONTINUES} it answers; ${HOW_TO_WAIT}`,
      { retryAfterMs: REFUSED_RETRY_MS },
    );
  } catch (error) {
    return toRuntimeError(error, `${CONTINUES} the right runtime answers; ${HOW_TO_WAIT}`);
  }
}

/** The runtime answered and refused a step. The row has the cause, and the step is tried again. */
function toRefusedError(row: EngineRow | undefined): DomainError {
  const isKnown = findStatusReasonCode(row?.statusReason ?? null) === "runtime_refused";
  const cause = isKnown ? row?.statusReason : "look for the cause in the service's log";
  const problem = `the runtime refused a step, which is tried again every ${REFUSED_RETRY_MS / 1000} s`;
  // A deletion may wait for a container that is not ours. That is no sign of a sick engine.
  const reason = row?.status === "destroying" ? "ENGINE_DESTROYING" : "ENGINE_UNHEALTHY";
  return new DomainError(reason, `${problem}: ${cause}`, { retryAfterMs: REFUSED_RETRY_MS });
}

/** Passes everything on that is not a RuntimeFailure. */
export function toRuntimeError(error: unknown, advice: string): unknown {
  if (!(error instanceof RuntimeFailure)) return error;
  const [reason, problem] = toRuntimeProblem(error);
  return new DomainError(reason, `${problem}: ${advice}`, { retryAfterMs: RUNTIME_RETRY_MS, cause: error });
}

function toRuntimeProblem(failure: RuntimeFailure): ["RUNTIME_CHANGED" | "RUNTIME_UNREACHABLE", string] {
  switch (failure.kind) {
    case "changed":
      return [
        "RUNTIME_CHANGED",
        "the runtime lacks this installation's marker, so an operator must correct or accept it",
      ];
    case "unreachable":
      return ["RUNTIME_UNREACHABLE", "the runtime does not answer"];
    default:
      return ["RUNTIME_UNREACHABLE", `the runtime refused the call (${failure.message})`];
  }
}

async function withinDeadline<T>(
  work: Promise<T>,
  deadlineMs: number | undefined,
  toError: () => Error,
): Promise<T> {
  if (deadlineMs === undefined) return work;
  const timeout = AbortSignal.timeout(deadlineMs);
  try {
    return await abortable(work, timeout);
  } catch (error) {
    if (error !== timeout.reason) throw error;
    throw toError();
  }
}
