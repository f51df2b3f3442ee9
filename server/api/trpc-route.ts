import { isUtf8 } from "node:buffer";
import { TRPCError } from "@trpc/server";
import { resolveResponse } from "@trpc/server/http";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { openCaller } from "./caller.ts";
import { logApiError } from "./log-api-error.ts";
import { toPath } from "./log-request.ts";
import type { RequestContext } from "./request-context.ts";
import { appRouter } from "./router.ts";
import { sendEventStream } from "./send-event-stream.ts";
import { rememberRequestId } from "./trpc.ts";

export const REQUEST_MAX_BYTES = 1024 * 1024;
const TURN_START_MAX_BYTES = 8 * 1024 * 1024;
/** What takes a message as long as a message may be. */
const TURN_STARTS = ["turns.start", "turns.execute"] as const;
const MAX_BATCH_SIZE = 10;

/** What tRPC reads of the headers; the key stays outside, and so out of its error reports. */
const TRPC_HEADERS = ["content-type", "accept", "trpc-accept", "last-event-id"] as const;

export type TrpcRouteOptions = Pick<RequestContext, "app" | "readiness" | "closing">;

/** Serves the router at `/trpc`. */
export function mountTrpc(server: FastifyInstance, options: TrpcRouteOptions): void {
  server.removeAllContentTypeParsers();
  server.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => {
    // Decoding would put U+FFFD in the place of what is not UTF-8, and a caller's text would change on its way.
    if (Buffer.isBuffer(body) && isUtf8(body)) done(null, body.toString("utf8"));
    else done(new TRPCError({ code: "BAD_REQUEST", message: "the body is not UTF-8" }));
  });
  const handler = async (request: FastifyRequest<{ Params: { path?: string } }>, reply: FastifyReply) =>
    send(reply, await answer(options, request, reply));
  const method = ["GET", "POST"];
  server.route({ method, url: "/trpc/:path", handler });
  for (const path of TURN_STARTS) {
    server.route({ method, url: `/trpc/${path}`, bodyLimit: TURN_START_MAX_BYTES, handler });
  }
}

async function answer(
  options: TrpcRouteOptions,
  request: FastifyRequest<{ Params: { path?: string } }>,
  reply: FastifyReply,
): Promise<Response> {
  const left = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) left.abort();
  });
  const { app } = options;
  const requestId = request.id;
  const caller = openCaller(app, request.headers.authorization, (name) => {
    request.actorName = name;
  });
  return resolveResponse({
    router: appRouter,
    req: toFetchRequest(request, left.signal),
    path: request.params.path ?? toPath(request.url).slice("/trpc/".length),
    error: null,
    allowMethodOverride: true,
    maxBatchSize: MAX_BATCH_SIZE,
    createContext: () => Promise.resolve({ ...options, ...caller, requestId }),
    onError: ({ error, path }) => {
      rememberRequestId(error, requestId);
      logApiError(app.log, error, { requestId, path: path ?? null, left: left.signal.aborted });
    },
  });
}

async function send(reply: FastifyReply, response: Response): Promise<FastifyReply> {
  const { status, headers, body } = response;
  // tRPC says keep-alive, even to a caller who has asked for the opposite; Node knows what is right.
  headers.delete("connection");
  if (headers.get("content-type") === "text/event-stream") return sendEventStream(reply, response);
  if (headers.has("transfer-encoding")) return reply.send(response);
  const allow = headers.get("allow");
  if (allow !== null) reply.header("allow", allow);
  reply.code(status).type("application/json");
  // One write with its length; as a stream it would be chunks through three more layers.
  return reply.send(body === null ? "" : await response.text());
}

function toFetchRequest(request: FastifyRequest, signal: AbortSignal): Request {
  const headers = new Headers();
  for (const name of TRPC_HEADERS) {
    const value = request.headers[name];
    if (typeof value === "string") headers.set(name, value);
  }
  const body = typeof request.body === "string" ? request.body : null;
  const queryAt = request.url.indexOf("?");
  const query = queryAt === -1 ? "" : request.url.slice(queryAt);
  // Host and path are stand-ins: only the query is read, and what a caller claims as Host can break a URL.
  const url = `http://enginehouse/${query}`;
  const text = async () => body ?? "";
  // All that tRPC reads where bodies are JSON. A real one would pass the body through a stream of its own.
  return { method: request.method, url, headers, signal, text } satisfies Partial<Request> as Request;
}
