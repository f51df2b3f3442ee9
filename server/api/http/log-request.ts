import type { FastifyReply, FastifyRequest } from "fastify";
import type { Log } from "../../log.ts";
import { toPath } from "./request-url.ts";

/** Asked every few seconds by whoever balances or restarts us. */
const QUIET_PATHS: ReadonlySet<string> = new Set(["/healthz", "/readyz"]);

/** One line per request; no header and no body is in it. */
export function logRequest(log: Log, request: FastifyRequest, reply: FastifyReply): void {
  const path = toPath(request.url);
  const fields = {
    method: request.method,
    path,
    status: reply.statusCode,
    ms: Math.round(reply.elapsedTime),
    requestId: request.id,
    actor: request.actorName,
  };
  if (QUIET_PATHS.has(path)) log.debug(fields, "request");
  else log.info(fields, "request");
}
