import { createHash } from "node:crypto";
import type { RequestListener } from "node:http";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { expect } from "vitest";
import { type HttpServer, openHttpServer } from "../../server/api/http/http-server.ts";
import type { Config } from "../../server/config/config.ts";
import type { AppContext } from "../../server/compose.ts";
import { hashKey } from "../../server/keys/key-format.ts";
import type { Log } from "../../server/log.ts";
import { type House, openHouse, openSite } from "../engines/open-house.ts";
import { answer, type Behaviour } from "../rpc/hostile-engine.ts";
import { openDocumentedApi } from "./openapi/documented-api.ts";
import { MemoryDaemon } from "../support/memory-daemon.ts";

export const ADMIN_KEY = "an opaque string of an operator, long enough";

export interface Reply {
  status: number;
  headers: Headers;
  // Any JSON: each test knows what it expects.
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any;
  text: string;
}

export interface CallOptions {
  key?: string;
  input?: unknown;
  headers?: Record<string, string>;
}

export interface StreamItem {
  id: string | undefined;
  event: string | undefined;
  // oxlint-disable-next-line typescript/no-explicit-any
  data: any;
}

type EngineRoute = "/rpc" | "/execute" | "/execute/cancel" | "/hitl/respond";

export interface Api extends AsyncDisposable {
  readonly url: string;
  readonly server: HttpServer;
  readonly house: House;
  readonly ctx: AppContext;
  readonly databaseUrl: string;
  /** All log lines, as JSON. */
  readonly logged: string[];
  /** Sets the answer of all engines on this route, for requests with the right engine key. */
  behave(route: EngineRoute, next: Behaviour): void;
  query(path: string, options?: CallOptions): Promise<Reply>;
  mutate(path: string, options?: CallOptions): Promise<Reply>;
  /** Yields events until the stream ends. Leaving the iteration closes the connection. */
  subscribe(path: string, options?: CallOptions): AsyncGenerator<StreamItem, void, void>;
  register(slug: string, more?: object): Promise<{ productId: string; apiKey: string }>;
  issue(productId: string, more?: object): Promise<{ keyId: string; apiKey: string }>;
}

const toQuery = (path: string, input: unknown) =>
  `/trpc/${path}${input === undefined ? "" : `?input=${encodeURIComponent(JSON.stringify(input))}`}`;

/**
 * Opens the whole service over HTTP, with engines in memory. Every reply to a call of one procedure, and every message of
 * a stream, is checked against the API document.
 */
export async function openApi(options: { config?: Partial<Config> } = {}): Promise<Api> {
  const routes = new Map<string, Behaviour>([
    ["/rpc", answer(200, { result: null })],
    ["/execute/cancel", answer(404, {})],
    ["/hitl/respond", answer(404, {})],
  ]);
  const daemon = new MemoryDaemon({ handler: (_observation, env) => toEngine(env, routes) });
  const config = { ...options.config, adminKeyHash: hashKey(ADMIN_KEY) };
  const site = await openSite({ config, daemon });
  const house = await openHouse(site);
  const logged: string[] = [];
  const ctx: AppContext = { ...house.ctx, log: captureLog(logged) };
  const server = await openHttpServer(ctx, { host: "127.0.0.1", port: 0 });
  const { url } = server;

  const documented = openDocumentedApi();
  const send = async (path: string, init: RequestInit, { key, headers }: CallOptions): Promise<Reply> => {
    const authorization: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
    const response = await fetch(`${url}${path}`, {
      ...init,
      headers: { ...authorization, "content-type": "application/json", ...headers },
    });
    const text = await response.text();
    const body = parse(text);
    expect(documented.judgeReply(path, { status: response.status, body }), path).toEqual([]);
    return { status: response.status, headers: response.headers, text, body };
  };
  const query: Api["query"] = async (path, call = {}) => send(toQuery(path, call.input), {}, call);
  const mutate: Api["mutate"] = async (path, call = {}) =>
    send(`/trpc/${path}`, { method: "POST", body: JSON.stringify(call.input ?? {}) }, call);

  const api: Api = {
    url,
    server,
    house,
    ctx,
    databaseUrl: site.database.url,
    logged,
    behave: (route, next) => routes.set(route, next),
    query,
    mutate,
    subscribe: async function* (path, call = {}) {
      for await (const item of stream(`${url}${toQuery(path, call.input)}`, call)) {
        expect(documented.judgeMessage(path, item), path).toEqual([]);
        yield item;
      }
    },
    register: async (slug, more = {}) => {
      const input = { slug, name: slug, ...more };
      const { body } = await mutate("products.register", { key: ADMIN_KEY, input });
      return { productId: body.result.data.product.productId, apiKey: body.result.data.apiKey };
    },
    issue: async (productId, more = {}) => {
      const input = { productId, name: "issued", ...more };
      const { body } = await mutate("platformKeys.issue", { key: ADMIN_KEY, input });
      return { keyId: body.result.data.key.keyId, apiKey: body.result.data.apiKey };
    },
    [Symbol.asyncDispose]: async () => {
      await server.close(1_000);
      await house[Symbol.asyncDispose]();
      await site[Symbol.asyncDispose]();
    },
  };
  return api;
}

function toEngine(
  environment: Readonly<Record<string, string>>,
  routes: ReadonlyMap<string, Behaviour>,
): RequestListener {
  return (request, response) => {
    if (request.url === "/health") return answer(200, { status: "ok" })(response, request, "");
    const key = String(request.headers["x-engine-key"] ?? "");
    const isKnown = createHash("sha256").update(key).digest("hex") === environment["ENGINE_KEY_HASH"];
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const behaviour = routes.get(request.url ?? "");
      const refusal = answer(401, { error: "UNAUTHORIZED", message: "wrong engine key" });
      (isKnown && behaviour ? behaviour : refusal)(response, request, Buffer.concat(chunks).toString("utf8"));
    });
    response.on("error", () => {});
  };
}

async function* stream(url: string, { key, headers }: CallOptions): AsyncGenerator<StreamItem, void, void> {
  const leaving = new AbortController();
  try {
    const authorization: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
    const response = await fetch(url, { headers: { ...authorization, ...headers }, signal: leaving.signal });
    if (!response.body) return;
    const events = response.body
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new EventSourceParserStream());
    for await (const { id, event, data } of events) yield { id, event, data: parse(data) };
  } finally {
    leaving.abort();
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function captureLog(lines: string[]): Log {
  const write = (level: string) => (fields: object, message: string) => {
    lines.push(JSON.stringify({ level, message, ...fields }));
  };
  const log: Log = {
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    child: () => log,
  };
  return log;
}
