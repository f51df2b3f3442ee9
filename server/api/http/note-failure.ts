import type { FastifyRequest } from "fastify";
import type { AppContext } from "../../compose.ts";
import { DomainError } from "../../errors.ts";
import { toApiError } from "../trpc/api-error.ts";
import { toErrorFields } from "./error-fields.ts";

export interface FailedCall {
  request: FastifyRequest;
  /** The procedure, or the path of a request that reached none. */
  path: string | null;
  /** The caller has left, so the reply is lost. */
  left: boolean;
}

export type FailureContext = Pick<AppContext, "log" | "denials" | "tamperReports">;

/**
 * Notes the reason of a failed call for the request's end, reports a row that did not verify, and logs the error if the reply hides it from the caller.
 * Other failures are the caller's own, so the request's log line is enough.
 */
export function noteFailure(
  { log, denials, tamperReports }: FailureContext,
  error: unknown,
  { request, path, left }: FailedCall,
): void {
  const { reason, retryAfterMs } = toApiError(error);
  const caller = request.caller?.known;
  const { deniedKey, tampered } = findDomainError(error) ?? {};
  denials.note({ reason, caller, deniedKey, procedure: path, requestId: request.id });
  if (tampered) tamperReports.report(tampered);
  request.reason = reason;
  request.retryAfterMs = retryAfterMs ?? null;
  if (reason !== "INTERNAL" && reason !== "DATABASE_UNAVAILABLE") return;
  const fields = { requestId: request.id, path, reason, ...toErrorFields(error) };
  // When a caller leaves, its call is cut off and fails in many harmless ways.
  if (left) log.debug(fields, "call failed after its caller had left");
  else if (reason === "INTERNAL") log.error(fields, "call failed");
  else log.warn(fields, "call failed");
}

/** tRPC wraps the errors of procedures. */
function findDomainError(error: unknown): DomainError | undefined {
  const found = error instanceof Error && !(error instanceof DomainError) ? error.cause : error;
  return found instanceof DomainError ? found : undefined;
}
