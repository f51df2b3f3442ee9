import { TRPCClientError } from "@trpc/client";
import type { AppRouter } from "../server/api/routers/router.ts";
import { ConnectionError } from "./connection-error.ts";
import type { ErrorData, FailureReason } from "./reason.ts";
import type { TurnEnd, TurnGap } from "./turn-event.ts";

interface EnginehouseErrorDetails extends Partial<Pick<ErrorData, "requestId" | "retryAfterMs" | "issues">> {
  end?: TurnEnd | undefined;
  gap?: TurnGap | undefined;
  engineError?: TurnEnd["engineError"] | ErrorData["engineError"];
  cause?: unknown;
}

/** The error of a failed turn or call. `reason` says what happened. */
export class EnginehouseError extends Error {
  readonly reason: FailureReason;
  /** How the turn ended; undefined if the turn has not ended or never began. */
  readonly end: TurnEnd | undefined;
  /** The missing events, if there are any. */
  readonly gap: TurnGap | undefined;
  /** The id of the failed request. Operators find the request in the log by this id. */
  readonly requestId: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly issues: ErrorData["issues"];
  readonly engineError: { code: string; message: string; details?: unknown } | undefined;

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
  }

  /**
   * Whether the same request may succeed later, unchanged. The service then says when (`retryAfterMs`). Lost connections
   * and the limits of gateways are transient, too.
   */
  get isTransient(): boolean {
    const isPassing = this.reason === "CONNECTION_LOST" || this.reason === "RATE_LIMITED";
    return isPassing || this.retryAfterMs !== undefined;
  }
}

export interface ErrorShape {
  message: string;
  data: ErrorData;
}

/** Makes the error of a call that the server refused. */
export function fromErrorShape({ message, data }: ErrorShape): EnginehouseError {
  return new EnginehouseError(data.reason, message, data);
}

function fromConnectionError(error: ConnectionError): EnginehouseError {
  const { reason, message, retryAfterMs } = error;
  return new EnginehouseError(reason, message, { retryAfterMs, cause: error });
}

/** Makes the error of a turn that failed or was interrupted. */
export function fromEnd(end: TurnEnd, gap?: TurnGap): EnginehouseError {
  const { reason, message, engineError } = end;
  return new EnginehouseError(reason ?? "INTERNAL", message ?? `the turn is ${end.status}`, {
    end,
    gap,
    engineError,
  });
}

/** Turns any error that `client.api` throws into an EnginehouseError. */
export function toEnginehouseError(error: unknown): EnginehouseError {
  if (error instanceof EnginehouseError) return error;
  if (error instanceof ConnectionError) return fromConnectionError(error);
  if (error instanceof TRPCClientError) {
    const { data, message, cause } = error as TRPCClientError<AppRouter>;
    if (data?.reason !== undefined) return fromErrorShape({ message, data });
    if (cause instanceof EnginehouseError) return cause;
    if (cause instanceof ConnectionError) return fromConnectionError(cause);
  }
  const message = error instanceof Error ? error.message : String(error);
  return new EnginehouseError("CONNECTION_LOST", message, { cause: error });
}

/**
 * The reason of an error that `client.api` or `client.execute` threw. CONNECTION_LOST means that no replica answered.
 * undefined: neither a replica nor the client made the error, for instance an aborted signal did.
 */
export function findReason(error: unknown): FailureReason | undefined {
  if (error instanceof EnginehouseError) return error.reason;
  if (!(error instanceof TRPCClientError)) return undefined;
  const { data, cause } = error as TRPCClientError<AppRouter>;
  if (data?.reason !== undefined) return data.reason;
  if (cause instanceof EnginehouseError) return cause.reason;
  return cause instanceof ConnectionError ? cause.reason : undefined;
}
