import { errors, type Dispatcher } from "undici";
import { hasMoreValuesThan, JSON_MAX_VALUES } from "../json/json-values.ts";
import type { EngineConnections } from "./connections.ts";
import { type AnswerHeaders, EngineCall, explainFailure } from "./engine-call.ts";

export interface EngineRequest {
  method: "GET" | "POST";
  path: string;
  headers?: Readonly<Record<string, string>>;
  body?: string;
  /** A longer answer counts as failed, and the connection is closed. */
  maxBytes: number;
  signal: AbortSignal;
}

export interface EngineAnswer {
  status: number;
  contentType: string;
  text: string;
}

export type ExchangeResult =
  ({ kind: "answered" } & EngineAnswer) | { kind: "failed"; stage: ExchangeStage; why: string };

/**
 * How far a failed exchange got:
 *
 * - `connecting`: there was no connection, so the engine has not received the request.
 * - `waiting`: the request was sent and no answer came, so the engine may have acted.
 * - `answering`: the answer broke off, was too long, had too many JSON values or was not HTTP.
 */
export type ExchangeStage = "connecting" | "waiting" | "answering";

/** Sends one request and reads its whole answer. Never throws. */
export async function exchangeWithEngine(
  connections: EngineConnections,
  endpoint: string,
  request: EngineRequest,
): Promise<ExchangeResult> {
  const { method, path, headers = {}, body = null, signal, maxBytes } = request;
  const exchange = new Exchange(connections, maxBytes);
  return exchange.send({ origin: endpoint, method, path, headers, body }, signal);
}

class Exchange extends EngineCall<ExchangeResult> {
  readonly #maxBytes: number;
  #hasAnswer = false;
  #status = 0;
  #contentType = "";
  #chunks: Buffer[] = [];
  #size = 0;

  constructor(connections: EngineConnections, maxBytes: number) {
    super(connections);
    this.#maxBytes = maxBytes;
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.#size <= this.#maxBytes) this.#chunks.push(chunk);
    else controller.abort(new Error(`the answer is longer than ${this.#maxBytes} bytes`));
  }

  protected onEnded(): void {
    const bytes = Buffer.concat(this.#chunks);
    // Before the answer is parsed: parsing and checking very many values would hold the event loop.
    if (bytes.length > JSON_MAX_VALUES && hasMoreValuesThan(bytes, JSON_MAX_VALUES)) {
      this.onFailed(
        new Error(`it has more than ${JSON_MAX_VALUES} JSON values, where each key counts as one`),
      );
      return;
    }
    const text = bytes.toString("utf8");
    this.answer({ kind: "answered", status: this.#status, contentType: this.#contentType, text });
  }

  protected onHead(_controller: unknown, status: number, headers: AnswerHeaders): void {
    this.#hasAnswer = true;
    this.#status = status;
    this.#contentType = String(headers["content-type"] ?? "");
  }

  protected onFailed(error: unknown): void {
    this.#chunks = [];
    this.answer({ kind: "failed", stage: this.#findStage(error), why: explainFailure(error) });
  }

  #findStage(error: unknown): ExchangeStage {
    if (this.#hasAnswer || error instanceof errors.HTTPParserError) return "answering";
    return this.isSent ? "waiting" : "connecting";
  }
}
