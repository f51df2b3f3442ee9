import { resolveResponse } from "@trpc/server/http";
import type { IncomingMessage } from "node:http";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { toOwner } from "../../keys/caller.ts";
import { CallerWatch } from "../turn-stream/caller-watch.ts";
import type { BodyBudget } from "../http/body-budget.ts";
import { toCallerAddress } from "../http/caller-address.ts";
import type { CallerConnections } from "../http/caller-connections.ts";
import { LargeBodies } from "../http/large-bodies.ts";
import { noteFailure } from "../http/note-failure.ts";
import { readBody } from "../http/read-body.ts";
import { addRetryAfter } from "../http/refuse.ts";
import { openCaller, type RequestCaller } from "../http/request-caller.ts";
import { toSearch } from "../http/request-url.ts";
import { cutConnection, STALL_MS, type UnsentAnswers } from "../http/unsent-answers.ts";
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
import { StandIns } from "./stand-ins.ts";
import { addRequestId } from "./trpc.ts";

export const REQUEST_MAX_BYTES = 1024 * 1024;
const TURN_START_MAX_BYTES = 8 * 1024 * 1024;
/** Procedures whose input holds a message, and so may be larger than others. */
const TURN_STARTS = ["turns.start", "turns.execute"] as const;
/** The kernel takes shorter answers at once, mostly. */
const LARGE_ANSWER_LENGTH = 64 * 1024;

/** The headers that tRPC reads. It does not get `authorization`, so no error of tRPC can show the key. */
const TRPC_HEADERS = ["content-type", "accept", "trpc-accept"] as const;

declare module "fastify" {
  interface FastifyRequest {
    /** The caller of this request. null until the body or the call asks for it. */
    caller: RequestCaller | null;
  }
}

export interface TrpcRouteOptions extends Pick<RequestContext, "app" | "readiness" | "closing"> {
  connections: CallerConnections;
  budget: BodyBudget;
  unsent: UnsentAnswers;
}

/** Serves the router at `/trpc`. */
export function mountTrpc(server: FastifyInstance, options: TrpcRouteOptions): void {
  server.removeAllContentTypeParsers();
  server.decorateRequest("caller", null);
  const bodyContext = { ...options, largeBodies: new LargeBodies() };
  server.addContentTypeParser("application/json", async (request: FastifyRequest, payload: IncomingMessage) =>
    readBody(bodyContext, { request, payload, caller: getCaller(options, request) }),
  );
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

type HttpCall = Pick<SubscriptionCall, "path" | "request" | "reply">;

async function answerCall(options: TrpcRouteOptions, call: HttpCall): Promise<FastifyReply> {
  const { path, request, reply } = call;
  if (isProcedure(path)) request.procedure = path;
  if (reply.raw.destroyed) return reply.hijack();
  const left = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) left.abort();
  });
  if (request.incoming?.refusal !== undefined) throw request.incoming.refusal;
  const { app, readiness, closing, unsent } = options;
  const standIns = new StandIns();
  const ctx: RequestContext = {
    app,
    readiness,
    closing,
    ...getCaller(options, request),
    requestId: request.id,
    findInputText: (batchIndex) => findInputText(request, batchIndex),
    standIns,
  };
  if (!isSubscription(path) || isBatch(request)) {
    return send(call, await resolve(ctx, call, left.signal), { standIns, unsent, closing });
  }
  await serveSubscription({ path, request, reply, ctx, unsent, left: left.signal });
  return reply;
}

/** A request's body and its call share one check of the key. */
function getCaller({ app, connections }: TrpcRouteOptions, request: FastifyRequest): RequestCaller {
  request.caller ??= openCaller(app, {
    authorization: request.headers.authorization,
    address: toCallerAddress(request.raw, app.config.trustProxy),
    onKnown: (caller) => {
      request.actorName = caller.actor.name;
      connections.noteKnown(request.raw.socket, toOwner(caller));
    },
  });
  return request.caller;
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
    // tRPC decodes the path, and fastify has decoded it already.
    path: encodeURIComponent(path),
    error: null,
    allowMethodOverride: true,
    maxBatchSize: MAX_BATCH_SIZE,
    createContext: () => Promise.resolve(ctx),
    onError: ({ error, path: procedure }) => {
      addRequestId(error, requestId);
      noteFailure(app.log, error, { request, path: procedure ?? null, left: left.aborted });
    },
  });
}

type BoundOptions = Pick<TrpcRouteOptions, "unsent" | "closing">;
interface SendOptions extends BoundOptions {
  standIns: StandIns;
}
type Answered = Pick<HttpCall, "request" | "reply">;

async function send(
  { request, reply }: HttpCall,
  response: Response,
  { standIns, unsent, closing }: SendOptions,
): Promise<FastifyReply> {
  const { status, headers, body } = response;
  addRetryAfter({ request, reply });
  if (headers.has("transfer-encoding")) {
    const lines = body?.pipeThrough(standIns.fillLines()).pipeThrough(new TextEncoderStream());
    return reply.send(new Response(lines ?? null, { status, headers }));
  }
  const allow = headers.get("allow");
  if (allow !== null) reply.header("allow", allow);
  reply.code(status).type("application/json");
  // Send the text in one write with its length. As a stream it would pass through three more layers in chunks.
  const text = body === null ? "" : standIns.fill(await response.text());
  if (text.length > LARGE_ANSWER_LENGTH) boundUnsent({ request, reply }, text.length, { unsent, closing });
  return reply.send(text);
}

/** A caller that does not take its answer must not hold it in memory for ever, and not at all once its key is refused. */
function boundUnsent({ request, reply }: Answered, bytes: number, { unsent, closing }: BoundOptions): void {
  const { raw: response } = reply;
  const { socket } = request.raw;
  unsent.add(response, { socket, bytes });
  // Node calls back only if the connection took no byte in this time.
  response.setTimeout(STALL_MS, () => cutConnection(socket));
  const { caller, actorName } = request;
  const watch = caller && actorName !== null ? new CallerWatch({ ...caller, closing }, undefined) : undefined;
  watch?.signal.addEventListener("abort", () => {
    if (watch.refused !== undefined) cutConnection(socket);
  });
  response.once("close", () => {
    watch?.[Symbol.dispose]();
    unsent.remove(response);
  });
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
