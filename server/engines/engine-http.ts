import { Client, errors } from "undici";
import { toErrorMessage } from "../errors.ts";

export interface EngineRequest {
  method: "GET" | "POST";
  path: string;
  headers?: Readonly<Record<string, string>>;
  body?: string;
  /** An answer longer than this is cut off and counts as failed. */
  maxBytes: number;
  signal: AbortSignal;
}

export type EngineExchange =
  | { kind: "answered"; status: number; contentType: string; text: string }
  | { kind: "failed"; stage: ExchangeStage; why: string };

/**
 * How far a failed exchange came: before a connection, so the engine cannot have seen the request; before any
 * answer, so it may have acted; or in the answer, which was cut, too long or not HTTP.
 */
export type ExchangeStage = "connecting" | "waiting" | "answering";

/**
 * One request on a connection of its own: it queues behind no stream, and a kept-alive connection that the engine
 * closed meanwhile cannot make a call look as if it had been sent. Redirects are not followed. Never throws.
 */
export async function exchangeWithEngine(endpoint: string, request: EngineRequest): Promise<EngineExchange> {
  let stage: ExchangeStage = "connecting";
  let client: Client | undefined;
  try {
    client = new Client(endpoint, { pipelining: 0, headersTimeout: 0, bodyTimeout: 0 });
    client.once("connect", () => {
      stage = "waiting";
    });
    const { method, path, headers = {}, body = null, signal } = request;
    const answer = await client.request({ method, path, headers, body, signal });
    stage = "answering";
    const text = await readBounded(answer.body, request.maxBytes);
    const contentType = String(answer.headers["content-type"] ?? "");
    return { kind: "answered", status: answer.statusCode, contentType, text };
  } catch (error) {
    if (error instanceof errors.HTTPParserError) stage = "answering";
    return { kind: "failed", stage, why: explain(error) };
  } finally {
    await client?.destroy().catch(() => {
      // It is being thrown away; how it went down no longer matters.
    });
  }
}

async function readBounded(body: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) throw new Error(`the answer is longer than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function explain(error: unknown): string {
  // A host name with several addresses fails with an aggregate, whose own message is empty.
  if (error instanceof AggregateError && error.message === "") return error.errors.map(explain).join("; ");
  return toErrorMessage(error);
}

const HEALTH_MAX_BYTES = 64 * 1024;

export interface HealthBody {
  status: "ok";
  [field: string]: unknown;
}
export type HealthProbe = { ready: true; body: HealthBody } | { ready: false; why: string };

export interface ProbeHealthOptions {
  timeoutMs: number;
  signal?: AbortSignal;
}

/** Asks an engine whether it is ready for `/execute`: only 200 with JSON of status "ok" is. Never throws. */
export async function probeHealth(endpoint: string, options: ProbeHealthOptions): Promise<HealthProbe> {
  const timeout = AbortSignal.timeout(options.timeoutMs);
  const signal = options.signal ? AbortSignal.any([timeout, options.signal]) : timeout;
  const exchange = await exchangeWithEngine(endpoint, {
    method: "GET",
    path: "/health",
    maxBytes: HEALTH_MAX_BYTES,
    signal,
  });
  if (exchange.kind === "failed") {
    return { ready: false, why: timeout.aborted ? `no answer within ${options.timeoutMs} ms` : exchange.why };
  }
  const body = parseHealth(exchange.text);
  if (exchange.status === 200 && body !== undefined) return { ready: true, body };
  return { ready: false, why: `/health answered ${exchange.status}: ${excerpt(exchange.text)}` };
}

function parseHealth(text: string): HealthBody | undefined {
  try {
    const body: unknown = JSON.parse(text);
    const isOk = typeof body === "object" && body !== null && "status" in body && body.status === "ok";
    return isOk ? (body as HealthBody) : undefined;
  } catch {
    // Not JSON is one of the ways of not being ready.
    return undefined;
  }
}

/** Enough of an answer to recognise it by, on one line. */
function excerpt(text: string): string {
  const line = text
    .slice(0, 300)
    .replaceAll(/[\s\p{Cc}]+/gu, " ")
    .trim();
  return line === "" ? "an empty body" : line.toWellFormed();
}
