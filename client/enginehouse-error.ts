import { TRPCClientError } from "@trpc/client";
import type { AppRouter } from "../server/api/routers/router.ts";
import { ConnectionError } from "./failure.ts";
import type { TurnEnd, TurnGap } from "./turn-event.ts";

/** What the server tells about a refusal. */
export type ErrorData = AppRouter["_def"]["_config"]["$types"]["errorShape"]["data"];
/** Every way the server refuses a call. */
export type Reason = ErrorData["reason"];

/**
 * What only this side can say. CONNECTION_LOST: no replica answered for too long; what was begun goes on.
 * EVENTS_MISSING: the server no longer has some of the turn's events. CLIENT_CLOSED: `close` was called.
 */
export const CLIENT_REASONS = ["CONNECTION_LOST", "EVENTS_MISSING", "CLIENT_CLOSED"] as const;
export type ClientReason = (typeof CLIENT_REASONS)[number];

export type FailureReason = Reason | NonNullable<TurnEnd["reason"]> | ClientReason;

interface EnginehouseErrorDetails extends Partial<
  Pick<ErrorData, "requestId" | "retryAfterMs" | "issues" | "httpStatus">
> {
  end?: TurnEnd | undefined;
  gap?: TurnGap | undefined;
  engineError?: TurnEnd["engineError"] | ErrorData["engineError"];
  cause?: unknown;
}

/** A turn that was refused, ended badly, or cannot be read any more; `reason` says which. */
export class EnginehouseError extends Error {
  readonly reason: FailureReason;
  /** How the turn ended; undefined while it did not, or when it never began. */
  readonly end: TurnEnd | undefined;
  /** Which events are missing, if any are. */
  readonly gap: TurnGap | undefined;
  /** What to ask the operators about. */
  readonly requestId: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly issues: ErrorData["issues"];
  readonly engineError: { code: string; message: string; details?: unknown } | undefined;
  readonly #httpStatus: number | undefined;

  constructor(reason: FailureReason, message: string, details: EnginehouseErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = "EnginehouseError";
    this.reason = reason;
    this.end = details.end;
    this.gap = details.gap;
    this.requestId = details.requestId ?? undefined;
    this.retryAfterMs = details.retryAfterMs;
    this.issues = details.issues;
    this.engineError = details.engineError ?? undefined;
    this.#httpStatus = details.httpStatus;
  }

  /** Whether the same request may work later without anything being changed. */
  get isTransient(): boolean {
    return this.reason === "CONNECTION_LOST" || (this.#httpStatus ?? 0) >= 500;
  }
}

/** From what the server sent in place of a result. */
export function fromErrorShape(shape: { message: string; data: ErrorData }): EnginehouseError {
  return new EnginehouseError(shape.data.reason, shape.message, shape.data);
}

export function fromEnd(end: TurnEnd, gap?: TurnGap): EnginehouseError {
  const { reason, message, engineError } = end;
  return new EnginehouseError(reason ?? "INTERNAL", message ?? `the turn is ${end.status}`, {
    end,
    gap,
    engineError,
  });
}

/** What anything thrown by `client.api` means for a turn. */
export function toEnginehouseError(error: unknown): EnginehouseError {
  if (error instanceof EnginehouseError) return error;
  if (error instanceof TRPCClientError) {
    const { data, message } = error as TRPCClientError<AppRouter>;
    if (data?.reason !== undefined) return fromErrorShape({ message, data });
    if (error.cause instanceof EnginehouseError) return error.cause;
  }
  const message = error instanceof Error ? error.message : String(error);
  return new EnginehouseError("CONNECTION_LOST", message, { cause: error });
}

/**
 * The reason of anything that `client.api` or `client.execute` threw: CONNECTION_LOST when no replica answered,
 * undefined for what is not an error of ours, an abort for one.
 */
export function findReason(error: unknown): FailureReason | undefined {
  if (error instanceof EnginehouseError) return error.reason;
  if (!(error instanceof TRPCClientError)) return undefined;
  const { data, cause } = error as TRPCClientError<AppRouter>;
  if (data?.reason !== undefined) return data.reason;
  if (cause instanceof EnginehouseError) return cause.reason;
  return cause instanceof ConnectionError ? "CONNECTION_LOST" : undefined;
}
