import type { FastifyReply, FastifyRequest } from "fastify";
import type { BaseContext } from "../../context.ts";
import { toPath } from "./request-url.ts";

/** Load balancers and supervisors call these every few seconds. */
export const QUIET_PATHS: ReadonlySet<string> = new Set(["/healthz", "/readyz"]);

type EndContext = Pick<BaseContext, "log" | "metrics">;

interface Ended {
  request: FastifyRequest;
  reply: FastifyReply;
  durationMs: number;
}

/**
 * Called once for each request, when its reply has been sent or the caller has left. Logs one line per sent reply.
 * The line has no header, query or body, because these may hold secrets.
 */
export function endRequest({ log, metrics }: EndContext, { request, reply, durationMs }: Ended): void {
  metrics.requestEnded({ route: toRoute(request), outcome: request.reason ?? "ok", durationMs });
  if (!reply.raw.writableFinished) return;
  const path = toPath(request.url);
  const fields = {
    method: request.method,
    path,
    status: reply.statusCode,
    ...(request.reason !== null && { reason: request.reason }),
    ...(request.turnId !== null && { turnId: request.turnId }),
    ms: Math.round(durationMs),
    requestId: request.id,
    actor: request.actorName,
  };
  if (QUIET_PATHS.has(path)) log.debug(fields, "request");
  else log.info(fields, "request");
}

/** From a closed set: callers choose the path, and a metric must not have a label for each of their inventions. */
function toRoute({ procedure, method, routeOptions }: FastifyRequest): string {
  return procedure ?? `${method} ${routeOptions.url ?? "unknown"}`;
}
