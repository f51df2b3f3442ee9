import { errors, type Dispatcher } from "undici";
import { Deadline } from "../time/deadline.ts";
import { type AnswerHeaders, EngineCall, explain } from "./engine-call.ts";
import type { EngineConnections } from "./connections.ts";

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

/** Sends one request, see `EngineCall`, and reads its answer to the end. Never throws. */
export async function exchangeWithEngine(
  connections: EngineConnections,
  endpoint: string,
  request: EngineRequest,
): Promise<EngineExchange> {
  const { method, path, headers = {}, body = null, signal, maxBytes } = request;
  const reset = method !== "GET" && !connections.isKept(endpoint);
  const exchange = new Exchange(connections, maxBytes, (keepAlive) => {
    if (!reset) connections.noteAnnouncement(endpoint, keepAlive);
  });
  return exchange.send({ origin: endpoint, method, path, headers, body, reset }, signal);
}

class Exchange extends EngineCall<EngineExchange> {
  readonly #maxBytes: number;
  readonly #onAnnounced: (keepAlive: string | string[] | undefined) => void;
  #hasAnswer = false;
  #status = 0;
  #contentType = "";
  #chunks: Buffer[] = [];
  #size = 0;

  constructor(
    connections: EngineConnections,
    maxBytes: number,
    onAnnounced: (keepAlive: string | string[] | undefined) => void,
  ) {
    super(connections);
    this.#maxBytes = maxBytes;
    this.#onAnnounced = onAnnounced;
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.#size <= this.#maxBytes) this.#chunks.push(chunk);
    else controller.abort(new Error(`the answer is longer than ${this.#maxBytes} bytes`));
  }

  onResponseEnd(): void {
    const text = Buffer.concat(this.#chunks).toString("utf8");
    this.answer({ kind: "answered", status: this.#status, contentType: this.#contentType, text });
  }

  protected onHead(_controller: unknown, status: number, headers: AnswerHeaders): void {
    this.#hasAnswer = true;
    this.#onAnnounced(headers["keep-alive"]);
    this.#status = status;
    this.#contentType = String(headers["content-type"] ?? "");
  }

  protected onFailed(error: unknown): void {
    this.#chunks = [];
    this.answer({ kind: "failed", stage: this.#findStage(error), why: explain(error) });
  }

  #findStage(error: unknown): ExchangeStage {
    if (this.#hasAnswer || error instanceof errors.HTTPParserError) return "answering";
    return this.isSent ? "waiting" : "connecting";
  }
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
export async function probeHealth(
  connections: EngineConnections,
  endpoint: string,
  options: ProbeHealthOptions,
): Promise<HealthProbe> {
  using deadline = new Deadline(options.timeoutMs, [options.signal]);
  const exchange = await exchangeWithEngine(connections, endpoint, {
    method: "GET",
    path: "/health",
    maxBytes: HEALTH_MAX_BYTES,
    signal: deadline.signal,
  });
  if (exchange.kind === "failed") {
    return {
      ready: false,
      why: deadline.hasPassed ? `no answer within ${options.timeoutMs} ms` : exchange.why,
    };
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
