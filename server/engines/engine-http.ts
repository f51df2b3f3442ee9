import { errors, type Dispatcher } from "undici";
import { toErrorMessage } from "../errors.ts";
import { engineConnections, isKept, noteAnnouncement } from "./engine-connections.ts";

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
 * One request, which queues behind no other and is sent once: see `engineConnections`. Redirects are not followed.
 * Never throws.
 */
export async function exchangeWithEngine(endpoint: string, request: EngineRequest): Promise<EngineExchange> {
  const { method, path, headers = {}, body = null, signal, maxBytes } = request;
  const reset = method !== "GET" && !isKept(endpoint);
  const exchange = new Exchange(maxBytes, (keepAlive) => {
    if (!reset) noteAnnouncement(endpoint, keepAlive);
  });
  const onAbort = () => exchange.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  else {
    try {
      engineConnections.dispatch({ origin: endpoint, method, path, headers, body, reset }, exchange);
    } catch (error) {
      exchange.onResponseError(undefined, error);
    }
  }
  try {
    return await exchange.result;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** What becomes of a request, without the streams that undici would make of its answer. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #maxBytes: number;
  readonly #onAnnounced: (keepAlive: string | string[] | undefined) => void;
  readonly #result = Promise.withResolvers<EngineExchange>();
  #controller: Dispatcher.DispatchController | undefined;
  #abortError: Error | undefined;
  #stage: ExchangeStage = "connecting";
  #status = 0;
  #contentType = "";
  #chunks: Buffer[] = [];
  #size = 0;

  constructor(maxBytes: number, onAnnounced: (keepAlive: string | string[] | undefined) => void) {
    this.#maxBytes = maxBytes;
    this.#onAnnounced = onAnnounced;
  }

  get result(): Promise<EngineExchange> {
    return this.#result.promise;
  }

  /** Answers at once, at whatever stage it is; what is still to be sent will not be. */
  abort(reason: unknown): void {
    this.#abortError = reason instanceof Error ? reason : new Error(toErrorMessage(reason));
    this.#fail(this.#abortError);
    this.#controller?.abort(this.#abortError);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#abortError) {
      controller.abort(this.#abortError);
      return;
    }
    this.#controller = controller;
    this.#stage = "waiting";
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
  ): void {
    // 1xx come before the answer.
    if (status < 200) return;
    this.#stage = "answering";
    this.#onAnnounced(headers["keep-alive"]);
    this.#status = status;
    this.#contentType = String(headers["content-type"] ?? "");
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.#size <= this.#maxBytes) this.#chunks.push(chunk);
    else controller.abort(new Error(`the answer is longer than ${this.#maxBytes} bytes`));
  }

  onResponseEnd(): void {
    const text = Buffer.concat(this.#chunks).toString("utf8");
    this.#result.resolve({ kind: "answered", status: this.#status, contentType: this.#contentType, text });
  }

  onResponseError(_controller: unknown, error: unknown): void {
    if (error instanceof errors.HTTPParserError) this.#stage = "answering";
    this.#fail(error);
  }

  #fail(error: unknown): void {
    this.#chunks = [];
    this.#result.resolve({ kind: "failed", stage: this.#stage, why: explain(error) });
  }
}

/** What went wrong between us and an engine, in one line. */
export function explain(error: unknown): string {
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
