import type { FastifyReply, FastifyRequest } from "fastify";
import type { Log } from "../../log.ts";
import { toPath } from "./request-url.ts";

/** Load balancers and supervisors call these every few seconds. */
const QUIET_PATHS: ReadonlySet<string> = new Set(["/healthz", "/readyz"]);

export interface EndedRequest {
  request: FastifyRequest;
  reply: FastifyReply;
  durationMs: number;
}

/**
 * Called once for each request, when its reply has been sent or the caller has left. Logs one line per sent reply.
 * The line has no header, query or body, because these may hold secrets.
 */
export function endRequest(log: Log, { request, reply, durationMs }: EndedRequest): void {
  if (!reply.raw.writableFinished) return;
  const path = toPath(request.url);
  const fields = {
    method: request.method,
    path,
    status: reply.statusCode,
    ...(request.reason !== null && { reason: request.reason }),
    ms: Math.round(durationMs),
    requestId: request.id,
    actor: request.actorName,
  };
  if (QUIET_PATHS.has(path)) log.debug(fields, "request");
  else log.info(fields, "request");
}
