import type { EngineErrorDetail } from "../errors.ts";
import type { EngineConnections } from "./connections.ts";
import { type AnswerHeaders, EngineCall, explainFailure } from "./engine-call.ts";
import { parseEngineError, toMediaType } from "./errors.ts";
import type { EngineAnswer } from "./exchange.ts";

/** Receives the bytes that an engine streams, as they arrive. */
export interface StreamSink {
  onChunk(chunk: Buffer): void;
  /** The last call, made once. `isClean` is true when the engine ended its answer properly. */
  onClose(isClean: boolean, why: string): void;
}

export interface StreamSource {
  /** Stops reading. Bytes that have arrived but are not read are lost if the engine resets the connection now. */
  pause(): void;
  resume(): void;
}

export type StreamAnswer<Sink extends StreamSink> =
  /** The caller must call `close`, which ends the connection. */
  | { kind: "streaming"; sink: Sink; close(): void }
  | { kind: "refused"; error: EngineErrorDetail }
  /** Status 200 without an event stream. The engine may be running the turn. */
  | { kind: "not_a_stream"; contentType: string; error: EngineErrorDetail }
  /** There was no connection, so the engine has not received the request. */
  | { kind: "unreachable"; why: string }
  /** The request was sent and no answer came. */
  | { kind: "lost"; why: string };

const ERROR_BODY_MAX_BYTES = 64 * 1024;
// One error object for all streams: a stack trace for each one would cost much and show nothing.
const STREAM_CLOSED = new Error("the service closed the stream");

export interface StreamOptions<Sink extends StreamSink> {
  /**
   * Called when the engine has accepted the request. The sink that it returns gets the stream from its first byte. A
   * text instead says why the stream is not wanted: the answer is then `refused`.
   */
  onAccepted: (source: StreamSource, headers: AnswerHeaders) => Sink | string;
  /** Aborts the request until the engine has accepted it. After that, `close` ends the stream. */
  signal: AbortSignal;
  /** The longest time that an answer without a stream may take after its headers. */
  errorBodyMs: number;
}

/** One request whose answer is an event stream. `send` rejects only with what `onAccepted` throws. */
export class StreamCall<Sink extends StreamSink> extends EngineCall<StreamAnswer<Sink>> {
  readonly #connections: EngineConnections;
  readonly #apiKey: string;
  readonly #options: StreamOptions<Sink>;
  #sink: Sink | undefined;
  #errorAnswer: ErrorAnswer | undefined;

  constructor(connections: EngineConnections, apiKey: string, options: StreamOptions<Sink>) {
    super(connections);
    this.#connections = connections;
    this.#apiKey = apiKey;
    this.#options = options;
  }

  onResponseData(_controller: unknown, chunk: Buffer): void {
    if (this.#sink) this.#sink.onChunk(chunk);
    else if (this.#errorAnswer) this.#addToError(this.#errorAnswer, chunk);
  }

  protected onEnded(): void {
    if (this.#sink) this.#closeSink(this.#sink, true, "the engine ended the stream");
    else this.#answerError();
  }

  protected onHead(controller: StreamSource, status: number, headers: AnswerHeaders): void {
    const contentType = String(headers["content-type"] ?? "");
    if (status === 200 && /^text\/event-stream\s*(;|$)/i.test(contentType)) {
      const sink = this.#options.onAccepted(controller, headers);
      if (typeof sink === "string") {
        this.answer({ kind: "refused", error: { status, code: "NOT_WANTED", message: sink } });
        this.abort(STREAM_CLOSED);
        return;
      }
      this.#sink = sink;
      this.answer({ kind: "streaming", sink, close: () => this.abort(STREAM_CLOSED) });
      return;
    }
    const { errorBodyMs } = this.#options;
    const late = new Error(`the answer did not end within ${errorBodyMs} ms`);
    const timer = setTimeout(() => this.abort(late), errorBodyMs);
    this.#errorAnswer = { status, contentType, chunks: [], size: 0, timer };
  }

  protected onFailed(error: unknown): void {
    const why = explainFailure(error);
    if (this.#sink) this.#closeSink(this.#sink, false, why);
    else if (this.#errorAnswer) this.#answerError();
    else this.answer({ kind: this.isSent ? "lost" : "unreachable", why });
  }

  #closeSink(sink: Sink, isClean: boolean, why: string): void {
    this.#sink = undefined;
    sink.onClose(isClean, why);
  }

  #addToError(answer: ErrorAnswer, chunk: Buffer): void {
    answer.chunks.push(chunk);
    answer.size += chunk.length;
    if (answer.size > ERROR_BODY_MAX_BYTES) this.abort(new Error("the answer is too long"));
  }

  /** If the answer broke off, its status and the bytes so far describe the error. */
  #answerError(): void {
    const answer = this.#errorAnswer;
    if (answer === undefined) return;
    this.#errorAnswer = undefined;
    clearTimeout(answer.timer);
    const { status, contentType, chunks } = answer;
    const text = Buffer.concat(chunks).subarray(0, ERROR_BODY_MAX_BYTES).toString("utf8");
    const secrets = this.#connections.secrets.and(this.#apiKey);
    const error = parseEngineError({ status, contentType, text }, secrets);
    if (status !== 200) this.answer({ kind: "refused", error });
    else this.answer({ kind: "not_a_stream", contentType: toMediaType(secrets.hide(contentType)), error });
  }
}

/** The part that has arrived of an answer without a stream. */
interface ErrorAnswer extends Omit<EngineAnswer, "text"> {
  chunks: Buffer[];
  size: number;
  timer: NodeJS.Timeout;
}
