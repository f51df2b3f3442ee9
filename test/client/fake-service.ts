import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";

export interface SeenRequest {
  path: string;
  url: string;
  authorization: string | undefined;
  input: Record<string, unknown>;
}

export interface Exchange extends SeenRequest {
  request: IncomingMessage;
  response: ServerResponse;
}

export interface FakeService extends AsyncDisposable {
  url: string;
  port: number;
  /** All requests so far, in the order of arrival. */
  seen: SeenRequest[];
  close(): Promise<void>;
}

/** A real HTTP server whose answers the test defines. The real service would give them only by accident. */
export async function openFakeService(
  answer: (exchange: Exchange) => void | Promise<void>,
  port = 0,
): Promise<FakeService> {
  const seen: SeenRequest[] = [];
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const body = await text(request);
    const url = request.url ?? "";
    const path = url.slice("/trpc/".length).split("?")[0] ?? "";
    const input = (body === "" ? {} : JSON.parse(body)) as Record<string, unknown>;
    const { authorization } = request.headers;
    seen.push({ path, url, authorization, input });
    await answer({ path, url, authorization, input, request, response });
  };
  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      response.destroy(error instanceof Error ? error : undefined);
    });
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the fake service has no port");
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => {
      server.close(resolve);
    });
  };
  return {
    url: `http://127.0.0.1:${address.port}`,
    port: address.port,
    seen,
    close,
    [Symbol.asyncDispose]: close,
  };
}

export function sendResult(response: ServerResponse, data: unknown): void {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify({ result: { data } }));
}

const STATUSES: Readonly<Record<string, number>> = {
  DRAINING: 503,
  DATABASE_UNAVAILABLE: 503,
  RATE_LIMITED: 429,
  STREAM_LIMIT: 429,
  ENGINE_UNHEALTHY: 503,
  ENGINE_NOT_FOUND: 404,
  TURN_NOT_FOUND: 404,
  IDEMPOTENCY_IN_PROGRESS: 409,
  INVALID_KEY: 401,
  INTERNAL: 500,
};

export function toErrorShape(reason: string, more: object = {}) {
  const httpStatus = STATUSES[reason] ?? 400;
  return {
    message: `refused: ${reason}`,
    code: -32_000,
    data: { code: "CODE", httpStatus, path: "path", reason, requestId: "request-1", ...more },
  };
}

export function sendRefusal(response: ServerResponse, reason: string, more: object = {}): void {
  const error = toErrorShape(reason, more);
  response.writeHead(error.data.httpStatus, { "content-type": "application/json" });
  response.end(JSON.stringify({ error }));
}

export interface FakeBatch {
  lastSeq: number;
  events: { seq: number; at: string; type: string; data: unknown }[];
  gap?: object;
  end?: object;
}

export function toEvent(seq: number, type = "text_delta", data: unknown = { text: `${seq} ` }) {
  return { seq, at: "2026-11-23T00:00:00.000Z", type, data };
}

export function toEnd(lastSeq: number, more: object = {}) {
  return {
    status: "completed",
    reason: null,
    message: null,
    engineError: null,
    lastSeq,
    engineMayContinue: false,
    ...more,
  };
}

export const CONNECTED = `event: connected\ndata: {"reconnectAfterInactivityMs":30000}\n\n\n`;
export const RETURN = "event: return\ndata: \n\n\n";

/** The text of a batch, in tRPC's format for a tracked value. */
export function toSse({ lastSeq, ...batch }: FakeBatch): string {
  return `data: ${JSON.stringify({ turnId: "turn", ...batch })}\nid: ${lastSeq}\n\n\n`;
}

export function startStream(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
}
