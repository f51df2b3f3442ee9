import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { fastify, type FastifyInstance, type FastifyRequest } from "fastify";
import type { AppContext } from "../../compose.ts";
import { Secrets } from "../../secrets/secrets.ts";
import { DomainError, toErrorMessage, type Reason } from "../../errors.ts";
import { mountTrpc, REQUEST_MAX_BYTES } from "../trpc/trpc-route.ts";
import { endRequest } from "./end-request.ts";
import { answerMalformedHttp } from "./malformed-http.ts";
import { openReadiness, type Readiness } from "./readiness.ts";
import { refuse, refuseUnknownPath } from "./refuse.ts";
import { UnsentAnswers } from "./unsent-answers.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The name of the key that came with the request; null until the key was accepted. */
    actorName: string | null;
    /** The called procedure; null for a batch and for other routes. */
    procedure: string | null;
    /** Why the request failed; of a batch, the reason of the last failed call. null if nothing has failed. */
    reason: Reason | null;
  }
}

export interface HttpServerOptions {
  host: string;
  /** 0 picks a free one. */
  port: number;
  timeouts?: Partial<HttpTimeouts>;
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
/** fastify's default is 100. A batch names up to ten procedures in one part of the path. */
const PATH_PART_MAX_LENGTH = 2_000;

/** Listens, and serves until closed. */
export async function openHttpServer(ctx: AppContext, options: HttpServerOptions): Promise<HttpServer> {
  const closing = new AbortController();
  const server = makeServer(ctx, { ...TIMEOUTS, ...options.timeouts });
  const endSilent = trackSilentConnections(server);
  const readiness = openReadiness(ctx);
  mountTrpc(server, { app: ctx, readiness, closing: closing.signal, unsent: new UnsentAnswers() });
  mountHealth(server, readiness);
  const url = await listen(server, options);

  let closed: Promise<void> | undefined;
  const close = async (deadlineMs = CLOSE_DEADLINE_MS) => {
    closing.abort();
    closed ??= closeServer(server, { deadlineMs, endSilent });
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

function makeServer(ctx: AppContext, timeouts: HttpTimeouts): FastifyInstance {
  const pending = new WeakMap<Socket, Set<ServerResponse>>();
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
    clientErrorHandler: (error, socket) => answerMalformedHttp(error, socket, pending.get(socket)),
    frameworkErrors: (error, request, reply) => refuse(ctx.log, error, { request, reply }),
  });
  server.decorateRequest("actorName", null);
  server.decorateRequest("procedure", null);
  server.decorateRequest("reason", null);
  server.addHook("onRequest", async (request, reply) => {
    const startedAt = performance.now();
    const { socket } = request.raw;
    pending.set(socket, (pending.get(socket) ?? new Set()).add(reply.raw));
    // fastify's `onResponse` does not run when the caller leaves, but every response closes.
    reply.raw.once("close", () => {
      pending.get(socket)?.delete(reply.raw);
      endRequest(ctx, { request, reply, durationMs: performance.now() - startedAt });
    });
    // A failed write closes the response, which is handled above. Without a listener it would end the process.
    reply.raw.on("error", ignore);
    reply.header("x-request-id", request.id);
    requireHost(request);
  });
  server.setErrorHandler((error, request, reply) => refuse(ctx.log, error, { request, reply }));
  server.setNotFoundHandler(refuseUnknownPath);
  // Ignore `Expect` headers. Node would refuse them without a body.
  server.server.on("checkExpectation", (request, response) => server.routing(request, response));
  return server;
}

const OUR_KEYS = new Secrets([]);

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
  server.get("/healthz", async (_request, reply) => reply.send({ ok: true }));
  server.get("/readyz", async (_request, reply) => {
    const found = await readiness();
    return reply.code(found.ok ? 200 : 503).send(found);
  });
}

/**
 * Clients open connections before they send a request, and some never send one. Node counts such a connection as busy,
 * so a close would wait for it. Returns a function that ends the connections that have not sent a byte.
 */
function trackSilentConnections(server: FastifyInstance): () => void {
  const sockets = new Set<Socket>();
  server.server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  return () => {
    for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
  };
}

interface CloseServerOptions {
  deadlineMs: number;
  endSilent: () => void;
}

async function closeServer(server: FastifyInstance, options: CloseServerOptions): Promise<void> {
  const { deadlineMs, endSilent } = options;
  const cut = setTimeout(() => server.server.closeAllConnections(), deadlineMs);
  // A connection whose call ends after the close began becomes idle, and would stay open until its keep-alive ends.
  const reap = setInterval(() => {
    server.server.closeIdleConnections();
    endSilent();
  }, REAP_INTERVAL_MS);
  try {
    await server.close();
  } finally {
    clearTimeout(cut);
    clearInterval(reap);
  }
}
