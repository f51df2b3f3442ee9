import type { FastifyReply, FastifyRequest } from "fastify";
import type { Log } from "../../log.ts";
import { type ApiError, toApiError, toProtocolError, toTrpcErrorShape } from "../trpc/api-error.ts";
import { logApiError } from "./log-api-error.ts";
import { toPath } from "./request-url.ts";

interface Exchange {
  request: FastifyRequest;
  reply: FastifyReply;
}

/** Answers what failed outside of a procedure: in tRPC's shape below `/trpc`, else in ours. */
export function refuse(log: Log, error: unknown, { request, reply }: Exchange): void {
  logApiError(log, error, {
    requestId: request.id,
    path: toPath(request.url),
    left: reply.raw.destroyed,
  });
  // A URL that cannot be read gets here past every hook.
  reply.header("x-request-id", request.id);
  const path = findProcedurePath(request.url);
  if (path === undefined) sendRaw(toApiError(error), { request, reply });
  else sendTrpc(error, path, { request, reply });
}

export function refuseUnknownPath(request: FastifyRequest, reply: FastifyReply): void {
  const isKnown = /^\/(?:trpc\/[^/]+|healthz|readyz)$/.test(toPath(request.url));
  const refusal = isKnown
    ? toProtocolError("METHOD_NOT_SUPPORTED", "this path takes another method")
    : toProtocolError("NOT_FOUND", "there is nothing at this path");
  sendRaw(refusal, { request, reply });
}

function sendTrpc(error: unknown, path: string, { request, reply }: Exchange): void {
  const shape = toTrpcErrorShape(error, { path, requestId: request.id });
  void reply.code(shape.data.httpStatus).send({ error: shape });
}

function sendRaw(
  { httpStatus, reason, message, retryAfterMs }: ApiError,
  { request, reply }: Exchange,
): void {
  const error = {
    reason,
    message,
    requestId: request.id,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  };
  void reply.code(httpStatus).send({ error });
}

function findProcedurePath(url: string): string | undefined {
  return /^\/trpc\/([^/?#]+)/.exec(url)?.[1];
}
