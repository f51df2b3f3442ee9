import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { EngineContext } from "./engine-context.ts";
import { EngineError, toErrorEnvelope } from "./engine-error.ts";
import { isEngineKey } from "./engine-key.ts";
import { discardBody, readJsonBody, sendJson } from "./json-body.ts";
import { logLine } from "./log-line.ts";
import { ROUTES, type Route } from "./routes.ts";

/** Listens. The caller closes the server and cuts the connections that are still open. */
export async function openEngineServer(
  ctx: EngineContext,
  address: { readonly host: string; readonly port: number },
): Promise<{ server: Server; port: number }> {
  const server = createServer((req, res) => {
    void answer(ctx, req, res).catch(async (error: unknown) => await refuse(req, res, error));
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(address.port, address.host, resolve);
  await promise;
  return { server, port: (server.address() as AddressInfo).port };
}

async function answer(ctx: EngineContext, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const url = URL.parse(req.url ?? "/", "http://engine");
  const route = ROUTES.get(url?.pathname ?? "");
  if (!url || !route) throw new EngineError(404, "NOT_FOUND", "this engine has no such path");
  if (req.method !== route.method) {
    res.setHeader("allow", route.method);
    throw new EngineError(405, "METHOD_NOT_ALLOWED", `this path accepts only ${route.method}`);
  }
  admit(ctx, route, req);
  const body = route.method === "POST" ? await readJsonBody(req) : {};
  // Checked after the body: the engine may have begun to drain while the body arrived.
  if (!route.isOpen && ctx.isDraining()) throw new EngineError(503, "DRAINING", "the engine is stopping");
  await route.handle(ctx, { body, query: url.searchParams, headers: req.headers, res });
}

function admit(ctx: Pick<EngineContext, "keyHash">, route: Route, req: IncomingMessage): void {
  if (route.isOpen || isEngineKey(ctx.keyHash, req.headers["x-engine-key"])) return;
  throw new EngineError(401, "INVALID_KEY", "X-Engine-Key is missing or wrong");
}

async function refuse(req: IncomingMessage, res: ServerResponse, error: unknown): Promise<void> {
  if (!(await discardBody(req))) return;
  if (!(error instanceof EngineError)) {
    logLine("request failed", { path: req.url?.split("?")[0], error: String(error) });
  }
  if (res.headersSent) res.destroy();
  else sendJson(res, error instanceof EngineError ? error.status : 500, toErrorEnvelope(error));
}
