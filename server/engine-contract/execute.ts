import type { Dispatcher } from "undici";
import { type AnswerHeaders, EngineCall, explain } from "./engine-call.ts";
import type { EngineConnections } from "./connections.ts";
import type { HeldEngine } from "../engines/access/hold-engine.ts";
import type { EngineErrorDetail } from "../errors.ts";
import { parseEngineError } from "./errors.ts";
import type { ExecuteBody } from "./execute-body.ts";

/** Gets what an engine streams, as it comes. */
export interface StreamSink {
  onChunk(chunk: Buffer): void;
  /** Once, and the last call: `isClean` when the engine ended its answer properly. */
  onClose(isClean: boolean, why: string): void;
}

export interface StreamSource {
  /** What has arrived is not read either, and is lost should the engine reset the connection meanwhile. */
  pause(): void;
  resume(): void;
}

export type ExecuteAnswer<Sink extends StreamSink> =
  /** `close` ends the connection, and has to be called. */
  | { kind: "streaming"; sink: Sink; close(): void }
  | { kind: "refused"; error: EngineErrorDetail }
  /** 200, but no event stream: what it is doing is anybody's guess. */
  | { kind: "not_a_stream"; error: EngineErrorDetail }
  /** There was no connection, so the engine has not seen the request. */
  | { kind: "unreachable"; why: string }
  /** The request went out and no answer came back. */
  | { kind: "lost"; why: string };

const ERROR_BODY_MAX_BYTES = 64 * 1024;
// One for all: a stack for each stream would be dear, and tell nothing.
const READ_NO_FURTHER = new Error("the stream is read no further");

interface ExecuteOptions<Sink extends StreamSink> {
  body: ExecuteBody;
  /** The engine has accepted: what it streams goes to the sink, from this very moment on. */
  onAccepted: (source: StreamSource) => Sink;
  /** Gives the request up; once the engine has accepted, that is `close`. */
  signal: AbortSignal;
  /** See `TurnTiming`. */
  errorBodyMs: number;
}

/** Sends `/execute`, see `EngineCall`. Throws what `onAccepted` does. */
export async function sendExecute<Sink extends StreamSink>(
  connections: EngineConnections,
  engine: Pick<HeldEngine, "endpoint" | "apiKey">,
  { body, onAccepted, signal, errorBodyMs }: ExecuteOptions<Sink>,
): Promise<ExecuteAnswer<Sink>> {
  const options: Dispatcher.DispatchOptions = {
    origin: engine.endpoint,
    reset: !connections.isKept(engine.endpoint),
    method: "POST",
    path: "/execute",
    headers: {
      "content-type": "application/json",
      accept: "text/event-stream",
      "x-engine-key": engine.apiKey,
    },
    body: body.take(),
  };
  return new ExecuteCall(connections, { apiKey: engine.apiKey, onAccepted, errorBodyMs }).send(
    options,
    signal,
  );
}

class ExecuteCall<Sink extends StreamSink> extends EngineCall<ExecuteAnswer<Sink>> {
  readonly #apiKey: string;
  readonly #onAccepted: (source: StreamSource) => Sink;
  readonly #errorBodyMs: number;
  #sink: Sink | undefined;
  #plain: PlainAnswer | undefined;

  constructor(
    connections: EngineConnections,
    given: { apiKey: string; onAccepted: (source: StreamSource) => Sink; errorBodyMs: number },
  ) {
    super(connections);
    this.#apiKey = given.apiKey;
    this.#onAccepted = given.onAccepted;
    this.#errorBodyMs = given.errorBodyMs;
  }

  onResponseData(_controller: unknown, chunk: Buffer): void {
    if (this.#sink) this.#sink.onChunk(chunk);
    else if (this.#plain) this.#addToPlain(this.#plain, chunk);
  }

  onResponseEnd(): void {
    if (this.#sink) this.#closeSink(this.#sink, { isClean: true, why: "the engine ended the stream" });
    else this.#answerPlain();
  }

  protected onHead(controller: StreamSource, status: number, headers: AnswerHeaders): void {
    const contentType = String(headers["content-type"] ?? "");
    if (status === 200 && /^text\/event-stream\s*(;|$)/i.test(contentType)) {
      const sink = this.#onAccepted(controller);
      this.#sink = sink;
      this.answer({ kind: "streaming", sink, close: () => this.abort(READ_NO_FURTHER) });
      return;
    }
    const timer = setTimeout(() => this.abort(new Error("the answer takes too long")), this.#errorBodyMs);
    this.#plain = { status, contentType, chunks: [], size: 0, timer };
  }

  protected onFailed(error: unknown): void {
    const why = explain(error);
    if (this.#sink) this.#closeSink(this.#sink, { isClean: false, why });
    else if (this.#plain) this.#answerPlain();
    else this.answer({ kind: this.isSent ? "lost" : "unreachable", why });
  }

  #closeSink(sink: Sink, { isClean, why }: { isClean: boolean; why: string }): void {
    this.#sink = undefined;
    sink.onClose(isClean, why);
  }

  #addToPlain(plain: PlainAnswer, chunk: Buffer): void {
    plain.chunks.push(chunk);
    plain.size += chunk.length;
    if (plain.size > ERROR_BODY_MAX_BYTES) this.abort(new Error("the answer is too long"));
  }

  /** Cut short, its beginning and the status have to do. */
  #answerPlain(): void {
    const answer = this.#plain;
    if (answer === undefined) return;
    this.#plain = undefined;
    clearTimeout(answer.timer);
    const { status, contentType, chunks } = answer;
    const text = Buffer.concat(chunks).subarray(0, ERROR_BODY_MAX_BYTES).toString("utf8");
    const error = parseEngineError({ status, contentType, text }, this.#apiKey);
    this.answer({ kind: status === 200 ? "not_a_stream" : "refused", error });
  }
}

/** An answer that is no stream, as far as it is there. */
interface PlainAnswer {
  status: number;
  contentType: string;
  chunks: Buffer[];
  size: number;
  timer: NodeJS.Timeout;
}
