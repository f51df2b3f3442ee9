import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { AppContext } from "../../compose.ts";
import { OUR_KEYS } from "../../secrets/secrets.ts";
import { DomainError, toErrorMessage, type Reason } from "../../errors.ts";
import { mountApiDocument } from "../openapi/mount-api-document.ts";
import { mountRaw } from "../raw/mount-raw.ts";
import { mountTrpc } from "../trpc/trpc-route.ts";
import { BodyBudget } from "./body-budget.ts";
import { CallerConnections } from "./caller-connections.ts";
import { endRequest, QUIET_PATHS } from "./end-request.ts";
import { acceptJsonBodies, REQUEST_MAX_BYTES } from "./json-bodies.ts";
import { answerMalformedHttp } from "./malformed-http.ts";
import { findProcessLimits, toMaxBodyBytes, toMaxConnections } from "./process-limits.ts";
import { sendRawRefusal } from "./raw-refusal.ts";
import { openReadiness, type Readiness } from "./readiness.ts";
import { answerUnservedMethod, refuse } from "./refuse.ts";
import { RequestBody } from "./request-body.ts";
import { toPath } from "./request-url.ts";
import { PROBE_METHODS } from "./probe-methods.ts";
import { ServedMethods } from "./served-methods.ts";
import { UnsentAnswers } from "./unsent-answers.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The called procedure; null for a batch and for other routes. */
    procedure: string | null;
    /** The turn that a request to a raw route is about. null: it names no valid one, or the route is another. */
    turnId: string | null;
    /** Why the request failed; of a batch, the reason of the last failed call. null if nothing has failed. */
    reason: Reason | null;
    /** After this time the failed request may succeed. */
    retryAfterMs: number | null;
    /** null: fastify refused the request before it looked for its route. */
    incoming: RequestBody | null;
  }
}

export interface HttpServerOptions {
  host: string;
  /** 0 picks a free one. */
  port: number;
  timeouts?: Partial<HttpTimeouts>;
  /** By default they come from the limits of the process. */
  bounds?: Partial<HttpBounds>;
}

export interface HttpBounds {
  /** Connections that are served at the same time. */
  connections: number;
  /** Bytes of all request bodies that are held at the same time. */
  bodyBytes: number;
}

/** How long a client may take to send a request, in milliseconds. */
export interface HttpTimeouts {
  headersMs: number;
  /** For headers and body together. */
  requestMs: number;
  /** How often connections are checked against these limits. */
  checkMs: number;
}

export interface HttpServer extends AsyncDisposable {
  readonly url: string;
  /**
   * Takes no new connections and ends open streams, so that their readers resume elsewhere. Waits up to `deadlineMs`
   * for running calls, then cuts their connections.
   */
  close(deadlineMs?: number): Promise<void>;
}

const KEEP_ALIVE_MS = 72_000;
const TIMEOUTS: HttpTimeouts = { headersMs: 15_000, requestMs: 120_000, checkMs: 5_000 };
const CLOSE_DEADLINE_MS = 10_000;
const REAP_INTERVAL_MS = 50;
const CONNECTION_BUFFER_BYTES = 16 * 1024;
const CROWDED_LOG_INTERVAL_MS = 10_000;
const CROWDED = {
  status: 429,
  reason: "RATE_LIMITED",
  message: "this replica has as many connections as it serves: try again later or at another replica",
  retryAfterMs: 1_000,
} as const;
/** The part of the connections that one product may use for streams, unless a setting or its policy says so. */
const STREAMS_SHARE = 1 / 2;
/** fastify's default is 100. A batch names up to ten procedures in one part of the path. */
const PATH_PART_MAX_LENGTH = 2_000;

/** Listens, and serves until closed. */
export async function openHttpServer(ctx: AppContext, options: HttpServerOptions): Promise<HttpServer> {
  const closing = new AbortController();
  const bounds = { ...toBounds(ctx), ...options.bounds };
  const connections = new CallerConnections(bounds.connections);
  const server = makeServer(ctx, { timeouts: { ...TIMEOUTS, ...options.timeouts }, connections });
  boundConnections(ctx, server, connections);
  const readiness = openReadiness(ctx);
  const budget = new BodyBudget(bounds.bodyBytes);
  const unsent = new UnsentAnswers((socket) => connections.ownerOf(socket) ?? "");
  const maxOpenStreams = ctx.config.maxOpenStreams ?? Math.ceil(bounds.connections * STREAMS_SHARE);
  const parts = { connections, budget, unsent, maxOpenStreams };
  const context = { app: ctx, readiness, closing: closing.signal, ...parts };
  acceptJsonBodies(server, context);
  mountTrpc(server, context);
  mountRaw(server, context);
  mountHealth(server, readiness);
  mountApiDocument(server);
  const url = await listen(server, options);

  let closed: Promise<void> | undefined;
  const close = async (deadlineMs = CLOSE_DEADLINE_MS) => {
    closing.abort();
    closed ??= closeServer(server, { deadlineMs, connections });
    await closed;
  };
  return { url, close, [Symbol.asyncDispose]: close };
}

async function listen(server: FastifyInstance, { host, port }: HttpServerOptions): Promise<string> {
  try {
    return await server.listen({ host, port });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EADDRINUSE") {
      throw new Error(`port ${port} of ${host} is taken: set ORCH_PORT to a free port`, { cause: error });
    }
    const what = `cannot listen on port ${port} of ${host}; check ORCH_HOST and ORCH_PORT`;
    throw new Error(`${what}: ${toErrorMessage(error)}`, { cause: error });
  }
}

function toBounds({ config }: Pick<AppContext, "config">): HttpBounds {
  const { openFiles, memoryBytes } = findProcessLimits();
  return {
    connections: toMaxConnections(openFiles, config.databasePool),
    bodyBytes: toMaxBodyBytes(memoryBytes),
  };
}

interface ServerParts {
  timeouts: HttpTimeouts;
  connections: CallerConnections;
}

function makeServer(ctx: AppContext, { timeouts, connections }: ServerParts): FastifyInstance {
  const server = fastify({
    bodyLimit: REQUEST_MAX_BYTES,
    routerOptions: { maxParamLength: PATH_PART_MAX_LENGTH },
    genReqId: (request) => toRequestId(request.headers["x-request-id"]),
    requestIdHeader: false,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: timeouts.requestMs,
    http: {
      headersTimeout: timeouts.headersMs,
      // Bounds what a connection holds of a reader that is behind.
      highWaterMark: CONNECTION_BUFFER_BYTES,
      connectionsCheckingInterval: timeouts.checkMs,
      // Node refuses without a body. `requireHost` refuses with one.
      requireHostHeader: false,
    },
    clientErrorHandler: (error, socket) => {
      if (connections.isAnsweredEarly(socket)) socket.destroy();
      else answerMalformedHttp(error, socket, connections.pendingOf(socket));
    },
    frameworkErrors: (error, request, reply) => refuse(ctx, error, { request, reply }),
  });
  const names = ["caller", "actorName", "procedure", "turnId", "reason", "retryAfterMs", "incoming"];
  for (const name of names) server.decorateRequest(name, null);
  server.addHook("onRequest", async (request, reply) => {
    const startedAt = performance.now();
    const { socket } = request.raw;
    const { healthOnly } = connections.begin(socket, reply.raw);
    const incoming = new RequestBody();
    request.incoming = incoming;
    // fastify's `onResponse` does not run when the caller leaves, but every response closes.
    reply.raw.once("close", () => {
      connections.end(socket, reply.raw);
      incoming[Symbol.dispose]();
      endRequest(ctx, { request, reply, durationMs: performance.now() - startedAt });
    });
    // A failed write closes the response, which is handled above. Without a listener it would end the process.
    reply.raw.on("error", ignore);
    reply.header("x-request-id", request.id);
    if (healthOnly) requireHealth(request, reply);
    requireHost(request);
    if (awaitsContinue(request)) {
      // A client that is not asked for its body may send it or not, so this connection cannot be used again.
      reply.header("connection", "close");
      incoming.sendContinue = () => {
        reply.removeHeader("connection");
        reply.raw.writeContinue();
      };
    }
  });
  server.setErrorHandler((error, request, reply) => refuse(ctx, error, { request, reply }));
  const served = new ServedMethods();
  // Before the routes: the hook sees only those that come after it.
  server.addHook("onRoute", (route) => served.note(route));
  server.setNotFoundHandler((request, reply) => answerUnservedMethod(served, { request, reply }));
  // Node would refuse an unknown `Expect` header without a body, and ask for every body before its caller is known.
  const serve = (request: IncomingMessage, response: ServerResponse) => server.routing(request, response);
  server.server.on("checkExpectation", serve);
  server.server.on("checkContinue", serve);
  return server;
}

function awaitsContinue({ headers }: FastifyRequest): boolean {
  return headers.expect !== undefined && /^100-continue$/i.test(headers.expect);
}

function boundConnections(ctx: AppContext, server: FastifyInstance, connections: CallerConnections): void {
  let loggedAt = -CROWDED_LOG_INTERVAL_MS;
  server.server.on("connection", (socket: Socket) => {
    const closedBefore = connections.closedCount;
    if (connections.admit(socket) === "refused") sendRawRefusal(socket, CROWDED);
    if (connections.closedCount === closedBefore) return;
    if (performance.now() - loggedAt < CROWDED_LOG_INTERVAL_MS) return;
    loggedAt = performance.now();
    const { max, closedCount: closed } = connections;
    ctx.log.warn(
      { max, closed },
      "connections were closed, because there are as many as this process serves",
    );
  });
}

function requireHealth(request: FastifyRequest, reply: FastifyReply): void {
  reply.header("connection", "close");
  if (QUIET_PATHS.has(toPath(request.url))) return;
  const { reason, message, retryAfterMs } = CROWDED;
  throw new DomainError(reason, message, { retryAfterMs });
}

/** Returns the caller's id if it is safe for a log line and a header, and is no key of ours; else a new id. */
function toRequestId(header: string | string[] | undefined): string {
  if (typeof header !== "string" || !/^[A-Za-z0-9._-]{1,64}$/.test(header)) return randomUUID();
  return OUR_KEYS.hide(header) === header ? header : randomUUID();
}

const ignore = () => undefined;

function requireHost(request: FastifyRequest): void {
  if (request.raw.httpVersion === "1.0" || request.headers.host !== undefined) return;
  throw new DomainError("INVALID_INPUT", "the Host header is missing: HTTP/1.1 requires one");
}

function mountHealth(server: FastifyInstance, readiness: () => Promise<Readiness>): void {
  server.route({
    method: PROBE_METHODS,
    url: "/healthz",
    handler: async (_, reply) => reply.send({ ok: true }),
  });
  server.route({
    method: PROBE_METHODS,
    url: "/readyz",
    handler: async (_request, reply) => {
      const found = await readiness();
      return reply.code(found.ok ? 200 : 503).send(found);
    },
  });
}

interface CloseServerOptions {
  deadlineMs: number;
  connections: CallerConnections;
}

async function closeServer(server: FastifyInstance, options: CloseServerOptions): Promise<void> {
  const { deadlineMs, connections } = options;
  const cut = setTimeout(() => server.server.closeAllConnections(), deadlineMs);
  // A connection whose call ends after the close began becomes idle, and would stay open until its keep-alive ends.
  const reap = setInterval(() => {
    server.server.closeIdleConnections();
    connections.endSilent();
  }, REAP_INTERVAL_MS);
  try {
    await server.close();
  } finally {
    clearTimeout(cut);
    clearInterval(reap);
  }
}
