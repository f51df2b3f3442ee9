import { TRPCError } from "@trpc/server";
import { getHTTPStatusCodeFromError } from "@trpc/server/http";
import { TRPC_ERROR_CODES_BY_KEY, type TRPC_ERROR_CODE_KEY } from "@trpc/server/rpc";
import { z } from "zod";
import { findDatabaseTrouble } from "../../../db/postgres-error.ts";
import { DomainError, type DomainErrorOptions, type InputIssue, type Reason } from "../../errors.ts";
import { OUR_KEYS } from "../../secrets/secrets.ts";
import { toBatchMessage } from "./batch-limit.ts";

/** The tRPC code of each reason. Every failed reply gets its code and HTTP status from this table. */
export const REASON_CODES = {
  INVALID_INPUT: "BAD_REQUEST",
  IMAGE_NOT_PINNED: "BAD_REQUEST",
  REQUEST_TOO_LARGE: "PAYLOAD_TOO_LARGE",
  INVALID_KEY: "UNAUTHORIZED",
  KEY_EXPIRED: "UNAUTHORIZED",
  KEY_REVOKED: "UNAUTHORIZED",
  SCOPE_MISSING: "FORBIDDEN",
  IMAGE_NOT_ALLOWED: "FORBIDDEN",
  ENGINE_NOT_FOUND: "NOT_FOUND",
  TURN_NOT_FOUND: "NOT_FOUND",
  PRODUCT_NOT_FOUND: "NOT_FOUND",
  KEY_NOT_FOUND: "NOT_FOUND",
  ENGINE_ALREADY_EXISTS: "CONFLICT",
  PRODUCT_SLUG_EXISTS: "CONFLICT",
  OPERATOR_NAME_EXISTS: "CONFLICT",
  PRODUCT_NOT_EMPTY: "CONFLICT",
  ENGINE_BUSY: "CONFLICT",
  ENGINE_STOPPED: "CONFLICT",
  ENGINE_SLEEPING: "CONFLICT",
  ENGINE_DESTROYING: "CONFLICT",
  GENERATION_CHANGED: "CONFLICT",
  TURN_IN_PROGRESS: "CONFLICT",
  IDEMPOTENCY_IN_PROGRESS: "CONFLICT",
  OUTCOME_UNKNOWN: "CONFLICT",
  VOLUME_MISSING: "CONFLICT",
  ROW_TAMPERED: "CONFLICT",
  RUNTIME_UNCHANGED: "CONFLICT",
  IDEMPOTENCY_MISMATCH: "UNPROCESSABLE_CONTENT",
  NOT_SUPPORTED_BY_ENGINE: "UNPROCESSABLE_CONTENT",
  QUOTA_EXCEEDED: "TOO_MANY_REQUESTS",
  RATE_LIMITED: "TOO_MANY_REQUESTS",
  STREAM_LIMIT: "TOO_MANY_REQUESTS",
  PORT_EXHAUSTION: "SERVICE_UNAVAILABLE",
  RUNTIME_UNREACHABLE: "SERVICE_UNAVAILABLE",
  RUNTIME_CHANGED: "SERVICE_UNAVAILABLE",
  ENGINE_UNHEALTHY: "SERVICE_UNAVAILABLE",
  DRAINING: "SERVICE_UNAVAILABLE",
  DATABASE_UNAVAILABLE: "SERVICE_UNAVAILABLE",
  ENGINE_ERROR: "BAD_GATEWAY",
  IMAGE_UNAVAILABLE: "BAD_GATEWAY",
  BOOT_TIMEOUT: "GATEWAY_TIMEOUT",
  BOOT_FAILED: "BAD_GATEWAY",
  ENGINE_TIMEOUT: "GATEWAY_TIMEOUT",
  DEADLINE_EXCEEDED: "TIMEOUT",
  INTERNAL: "INTERNAL_SERVER_ERROR",
} as const satisfies Record<Reason, TRPC_ERROR_CODE_KEY>;

export function toHttpStatus(reason: Reason): number {
  return getHTTPStatusCodeFromError(new TRPCError({ code: REASON_CODES[reason] }));
}

/** A thrown error in the form that a caller may see. */
export interface ApiError extends Pick<DomainErrorOptions, "retryAfterMs" | "issues" | "engineError"> {
  code: TRPC_ERROR_CODE_KEY;
  httpStatus: number;
  reason: Reason;
  message: string;
}

/** `error.data` of every tRPC error. */
export interface ApiErrorData extends Omit<ApiError, "message"> {
  path: string | null;
  requestId: string | null;
}

const MAX_ISSUES = 20;
const MAX_ISSUE_LENGTH = 200;
const DATABASE_RETRY_AFTER_MS = 1_000;

/** Converts any error for the wire. An error without a listed reason becomes "internal error", without any detail. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof DomainError) return fromDomain(error);
  if (error instanceof TRPCError) return fromTrpc(error);
  if (isFrameworkRefusal(error)) return fromFramework(error);
  const trouble = findDatabaseTrouble(error);
  if (trouble !== undefined) {
    return listed("DATABASE_UNAVAILABLE", `the database ${trouble}: try again later`, {
      retryAfterMs: DATABASE_RETRY_AFTER_MS,
    });
  }
  return listed("INTERNAL", "internal error");
}

/** Refusals of `turns.execute` after which a new attempt may succeed, so the reader should come back. */
const EXECUTE_AGAIN: ReadonlySet<Reason> = new Set(["DRAINING", "DATABASE_UNAVAILABLE"]);

/**
 * tRPC's link opens a stream again after every 5xx, and so would send a refused execute again. A final refusal gets a
 * 4xx instead.
 */
function toExecuteError(error: ApiError): ApiError {
  if (error.httpStatus < 500 || EXECUTE_AGAIN.has(error.reason)) return error;
  return { ...error, code: "PRECONDITION_FAILED", httpStatus: 412 };
}

function fromDomain({ reason, message, retryAfterMs, issues, engineError }: DomainError): ApiError {
  return listed(reason, reason === "INTERNAL" ? "internal error" : message, {
    retryAfterMs,
    issues,
    engineError,
  });
}

/** tRPC wraps the errors of procedures, and throws its own for requests that reach none. */
function fromTrpc(error: TRPCError): ApiError {
  const { cause, code } = error;
  if (code === "INTERNAL_SERVER_ERROR") {
    return cause === undefined || cause instanceof TRPCError
      ? listed("INTERNAL", "internal error")
      : toApiError(cause);
  }
  if (cause instanceof DomainError) return fromDomain(cause);
  if (code === "BAD_REQUEST" && cause instanceof z.ZodError) {
    const issues = cause.issues.slice(0, MAX_ISSUES).map(toInputIssue);
    return listed("INVALID_INPUT", `the input is not valid${toHint(issues)}`, { issues });
  }
  const httpStatus = getHTTPStatusCodeFromError(error);
  if (httpStatus >= 500) return listed("INTERNAL", "internal error");
  const reason: Reason = code === "PAYLOAD_TOO_LARGE" ? "REQUEST_TOO_LARGE" : "INVALID_INPUT";
  // The message of a JSON parser quotes the input. Only a message of tRPC itself goes to the caller.
  const message = toBatchMessage(error) ?? (cause === undefined ? cut(error.message) : toJsonMessage(cause));
  return { code, httpStatus, reason, message };
}

/** V8 ends most messages of its JSON parser with the place of the mistake. */
function toJsonMessage({ message }: Error): string {
  const isCut = message === "Unexpected end of JSON input";
  const place = / at position \d+(?: \(line \d+ column \d+\))?$/.exec(message)?.[0] ?? "";
  return `the request is not valid JSON${isCut ? ": it ends too early" : place}`;
}

interface FrameworkRefusal extends Error {
  statusCode: number;
}

/** True for a request that fastify refused: too large, of a wrong content type, or with a wrong length. */
function isFrameworkRefusal(error: unknown): error is FrameworkRefusal {
  if (!(error instanceof Error && "code" in error && "statusCode" in error)) return false;
  const { code, statusCode } = error;
  const isRefusal = typeof statusCode === "number" && statusCode >= 400 && statusCode < 500;
  return isRefusal && typeof code === "string" && code.startsWith("FST_");
}

function fromFramework({ statusCode, message }: FrameworkRefusal): ApiError {
  switch (statusCode) {
    case 413:
      return listed("REQUEST_TOO_LARGE", "the request body is larger than this path allows");
    case 415:
      return toProtocolError(
        "UNSUPPORTED_MEDIA_TYPE",
        "the content type is not supported: send application/json",
      );
    default:
      return { ...toProtocolError("BAD_REQUEST", cut(message)), httpStatus: statusCode };
  }
}

/** An error for a request that reaches no procedure: INVALID_INPUT, and an HTTP status that says what is wrong. */
export function toProtocolError(code: TRPC_ERROR_CODE_KEY, message: string): ApiError {
  const httpStatus = getHTTPStatusCodeFromError(new TRPCError({ code }));
  return { code, httpStatus, reason: "INVALID_INPUT", message };
}

function toInputIssue(issue: z.core.$ZodIssue): InputIssue {
  return { path: cut(issue.path.map(String).join(".")), message: cut(issue.message) };
}

/** Puts the first issue into the message, for callers that show only the message. */
function toHint([first, ...others]: readonly InputIssue[]): string {
  if (first === undefined) return "";
  const field = first.path === "" ? "" : `${first.path}: `;
  return `: ${field}${first.message}${others.length === 0 ? "" : ` (and ${others.length} more)`}`;
}

/** Hides keys, too: a caller may put one into the path by mistake, and then logs the reply. */
function cut(text: string): string {
  const shown = OUR_KEYS.hideInStart(text, MAX_ISSUE_LENGTH);
  return text.length <= MAX_ISSUE_LENGTH ? shown : `${shown.toWellFormed()}…`;
}

function listed(
  reason: Reason,
  message: string,
  more: Pick<ApiError, "retryAfterMs" | "issues" | "engineError"> = {},
): ApiError {
  return { code: REASON_CODES[reason], httpStatus: toHttpStatus(reason), reason, message, ...more };
}

/** An error in a tRPC reply. */
export interface TrpcErrorShape {
  message: string;
  code: (typeof TRPC_ERROR_CODES_BY_KEY)[TRPC_ERROR_CODE_KEY];
  data: ApiErrorData;
}

export function toTrpcErrorShape(
  error: unknown,
  { path, requestId }: Pick<ApiErrorData, "path" | "requestId">,
): TrpcErrorShape {
  const found = path === "turns.execute" ? toExecuteError(toApiError(error)) : toApiError(error);
  const { message, code, httpStatus, reason, ...more } = found;
  const shownPath = path === null ? null : cut(path);
  const data = { code, httpStatus, path: shownPath, reason, requestId, ...more };
  return { message, code: TRPC_ERROR_CODES_BY_KEY[code], data };
}
