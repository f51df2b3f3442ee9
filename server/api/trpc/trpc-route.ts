import { resolveResponse } from "@trpc/server/http";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { TURN_START_MAX_BYTES } from "../http/json-bodies.ts";
import { noteFailure } from "../http/note-failure.ts";
import { addRetryAfter } from "../http/refuse.ts";
import { toSearch } from "../http/request-url.ts";
import { type SendContext, sendJson } from "../http/send-json.ts";
import { appRouter } from "../routers/router.ts";
import type { RequestContext } from "./request-context.ts";
import {
  isProcedure,
  isSubscription,
  serveSubscription,
  type SubscriptionCall,
} from "./serve-subscription.ts";
import { MAX_BATCH_SIZE } from "./batch-limit.ts";
import { findInputText, isBatch } from "./input-text.ts";
import { encodeForTrpc } from "../turn-stream/encode-for-trpc.ts";
import { beginCall, type RouteContext } from "./begin-call.ts";
import type { StandIns } from "./stand-ins.ts";
import { addRequestId } from "./trpc.ts";

/** Procedures whose input holds a message, and so may be larger than others. */
const TURN_STARTS = ["turns.start", "turns.execute"] as const;

/** The headers that tRPC reads. It does not get `authorization`, so no error of tRPC can show the key. */
const TRPC_HEADERS = ["content-type", "accept", "trpc-accept"] as const;

/** Serves the router at `/trpc`. */
export function mountTrpc(server: FastifyInstance, context: RouteContext): void {
  const answer = async (path: string, request: FastifyRequest, reply: FastifyReply) =>
    answerCall(context, { path, request, reply });
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

type TrpcCall = Pick<SubscriptionCall, "path" | "request" | "reply">;

async function answerCall(context: RouteContext, call: TrpcCall): Promise<FastifyReply> {
  const { path, request, reply } = call;
  if (isProcedure(path)) request.procedure = path;
  const begun = beginCall(context, {
    request,
    reply,
    encode: encodeForTrpc,
    findInputText: (batchIndex) => findInputText(request, batchIndex),
  });
  if (begun === undefined) return reply;
  const { ctx, left } = begun;
  if (!isSubscription(path) || isBatch(request)) {
    return send(call, await resolve(ctx, call, left), { ...context, standIns: ctx.standIns });
  }
  await serveSubscription({ path, request, reply, ctx, unsent: context.unsent, left });
  return reply.hijack();
}

async function resolve(
  ctx: RequestContext,
  { path, request }: TrpcCall,
  left: AbortSignal,
): Promise<Response> {
  const { app, requestId } = ctx;
  return resolveResponse({
    router: appRouter,
    req: toFetchRequest(request, left),
    // tRPC decodes the path, and fastify has decoded it already.
    path: encodeURIComponent(path),
    error: null,
    allowMethodOverride: true,
    maxBatchSize: MAX_BATCH_SIZE,
    createContext: () => Promise.resolve(ctx),
    onError: ({ error, path: procedure }) => {
      addRequestId(error, requestId);
      noteFailure(app, error, { request, path: procedure ?? null, left: left.aborted });
    },
  });
}

async function send(
  { request, reply }: TrpcCall,
  response: Response,
  { standIns, ...context }: SendContext & { standIns: StandIns },
): Promise<FastifyReply> {
  const { status, headers, body } = response;
  if (headers.has("transfer-encoding")) {
    addRetryAfter({ request, reply });
    const lines = body?.pipeThrough(standIns.fillLines()).pipeThrough(new TextEncoderStream());
    return reply.send(new Response(lines ?? null, { status, headers }));
  }
  const allow = headers.get("allow");
  if (allow !== null) reply.header("allow", allow);
  const text = body === null ? "" : standIns.fill(await response.text());
  return sendJson(context, { request, reply, status, text });
}

function toFetchRequest(request: FastifyRequest, signal: AbortSignal): Request {
  const headers = new Headers();
  for (const name of TRPC_HEADERS) {
    const value = request.headers[name];
    if (typeof value === "string") headers.set(name, value);
  }
  const body = typeof request.body === "string" ? request.body : null;
  // tRPC reads only the query of this URL. Host and path are constants, because a caller's Host can break a URL.
  const url = `http://enginehouse/${toSearch(request.url)}`;
  const text = async () => body ?? "";
  // These are all the members that tRPC reads for JSON. A real Request would pass the body through another stream.
  return { method: request.method, url, headers, signal, text } satisfies Partial<Request> as Request;
}
