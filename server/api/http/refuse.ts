import type { FastifyReply, FastifyRequest } from "fastify";
import { type ApiError, toApiError, toProtocolError, toTrpcErrorShape } from "../trpc/api-error.ts";
import { noteFailure, type FailureContext } from "./note-failure.ts";
import { toRetryAfter } from "./raw-refusal.ts";
import { toPath } from "./request-url.ts";
import type { ServedMethods } from "./served-methods.ts";

interface Exchange {
  request: FastifyRequest;
  reply: FastifyReply;
}

/** Answers a request that failed outside a procedure: below `/trpc` in tRPC's shape, elsewhere in our own. */
export function refuse(ctx: FailureContext, error: unknown, { request, reply }: Exchange): void {
  noteFailure(ctx, error, { request, path: toPath(request.url), left: reply.raw.destroyed });
  // No hook has run for a URL that fastify cannot parse, so set the header here, too.
  reply.header("x-request-id", request.id);
  addRetryAfter({ request, reply });
  const path = findProcedurePath(request.url);
  if (path === undefined) sendRaw(toApiError(error), { request, reply });
  else sendTrpc(error, path, { request, reply });
}

/** For proxies and for callers that do not read the body of a refusal. */
export function addRetryAfter({ request, reply }: Exchange): void {
  if (request.retryAfterMs !== null) reply.header("retry-after", toRetryAfter(request.retryAfterMs));
}

/** Answers a request whose path or method no route serves. */
export function answerUnservedMethod(served: ServedMethods, { request, reply }: Exchange): void {
  const methods = served.find(request.url);
  if (methods !== undefined) reply.header("allow", methods.join(", "));
  if (methods !== undefined && request.method === "OPTIONS") {
    void reply.code(204).send();
    return;
  }
  const refusal = methods
    ? toProtocolError("METHOD_NOT_SUPPORTED", `this path does not support the method ${request.method}`)
    : toProtocolError(
        "NOT_FOUND",
        "this path does not exist: procedures are at /trpc/<procedure>, raw routes below /v1",
      );
  request.reason = refusal.reason;
  sendRaw(refusal, { request, reply });
}

function sendTrpc(error: unknown, path: string, { request, reply }: Exchange): void {
  const shape = toTrpcErrorShape(error, { path, requestId: request.id });
  void reply.code(shape.data.httpStatus).send({ error: shape });
}

function sendRaw(error: ApiError, { request, reply }: Exchange): void {
  const { httpStatus, reason, message, retryAfterMs, issues, engineError } = error;
  // HTTP requires it in each answer with this status.
  if (httpStatus === 401) reply.header("www-authenticate", 'Bearer realm="enginehouse"');
  const body = { reason, message, requestId: request.id, retryAfterMs, issues, engineError };
  void reply.code(httpStatus).send({ error: body });
}

function findProcedurePath(url: string): string | undefined {
  return /^\/trpc\/([^/?#]+)/.exec(url)?.[1];
}
