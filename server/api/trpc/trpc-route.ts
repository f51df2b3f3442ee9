import { isUtf8 } from "node:buffer";
import { TRPCError } from "@trpc/server";
import { resolveResponse } from "@trpc/server/http";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { openCaller } from "../http/request-caller.ts";
import { logApiError } from "../http/log-api-error.ts";
import type { RequestContext } from "./request-context.ts";
import { toSearch } from "../http/request-url.ts";
import { appRouter } from "../routers/router.ts";
import { isSubscription, serveSubscription } from "../sse/serve-subscription.ts";
import { rememberRequestId } from "./trpc.ts";

export const REQUEST_MAX_BYTES = 1024 * 1024;
const TURN_START_MAX_BYTES = 8 * 1024 * 1024;
/** What takes a message as long as a message may be. */
const TURN_STARTS = ["turns.start", "turns.execute"] as const;
const MAX_BATCH_SIZE = 10;

/** What tRPC reads of the headers; the key stays outside, and so out of its error reports. */
const TRPC_HEADERS = ["content-type", "accept", "trpc-accept"] as const;

export type TrpcRouteOptions = Pick<RequestContext, "app" | "readiness" | "closing">;

/** Serves the router at `/trpc`. */
export function mountTrpc(server: FastifyInstance, options: TrpcRouteOptions): void {
  server.removeAllContentTypeParsers();
  server.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => {
    // Decoding would put U+FFFD in the place of what is not UTF-8, and a caller's text would change on its way.
    if (Buffer.isBuffer(body) && isUtf8(body)) done(null, body.toString("utf8"));
    else done(new TRPCError({ code: "BAD_REQUEST", message: "the body is not UTF-8" }));
  });
  const answer = async (path: string, request: FastifyRequest, reply: FastifyReply) =>
    answerCall(options, { path, request, reply });
  const method = ["GET", "POST"];
  server.route<{ Params: { path: string } }>({
    method,
    url: "/trpc/:path",
    handler: async (request, reply) => answer(request.params.path, request, reply),
  });
  for (const path of TURN_STARTS) {
    const handler = async (request: FastifyRequest, reply: FastifyReply) => answer(path, request, reply);
    server.route({ method, url: `/trpc/${path}`, bodyLimit: TURN_START_MAX_BYTES, handler });
  }
}

interface HttpCall {
  path: string;
  request: FastifyRequest;
  reply: FastifyReply;
}

async function answerCall(options: TrpcRouteOptions, call: HttpCall): Promise<FastifyReply> {
  const { path, request, reply } = call;
  if (reply.raw.destroyed) return reply.hijack();
  const left = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) left.abort();
  });
  const caller = openCaller(options.app, request.headers.authorization, (name) => {
    request.actorName = name;
  });
  const ctx: RequestContext = { ...options, ...caller, requestId: request.id };
  if (!isSubscription(path) || isBatch(request)) return send(reply, await resolve(ctx, call, left.signal));
  await serveSubscription({ path, request, reply, ctx, left: left.signal });
  return reply;
}

async function resolve(
  ctx: RequestContext,
  { path, request }: HttpCall,
  left: AbortSignal,
): Promise<Response> {
  const { app, requestId } = ctx;
  return resolveResponse({
    router: appRouter,
    req: toFetchRequest(request, left),
    // It is decoded there once more.
    path: encodeURIComponent(path),
    error: null,
    allowMethodOverride: true,
    maxBatchSize: MAX_BATCH_SIZE,
    createContext: () => Promise.resolve(ctx),
    onError: ({ error, path: procedure }) => {
      rememberRequestId(error, requestId);
      logApiError(app.log, error, { requestId, path: procedure ?? null, left: left.aborted });
    },
  });
}

function isBatch(request: FastifyRequest): boolean {
  return new URLSearchParams(toSearch(request.url)).get("batch") === "1";
}

async function send(reply: FastifyReply, response: Response): Promise<FastifyReply> {
  const { status, headers, body } = response;
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
  // Host and path are stand-ins: only the query is read, and what a caller claims as Host can break a URL.
  const url = `http://enginehouse/${toSearch(request.url)}`;
  const text = async () => body ?? "";
  // All that tRPC reads where bodies are JSON. A real one would pass the body through a stream of its own.
  return { method: request.method, url, headers, signal, text } satisfies Partial<Request> as Request;
}
