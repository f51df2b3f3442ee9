import type { Dispatcher } from "undici";
import { toErrorMessage } from "../errors.ts";
import type { CallConnection, EngineConnections } from "./connections.ts";

/** Enough for a proxy that sends one interim answer a second for an hour. */
const MAX_INTERIM_ANSWERS = 4_000;

type Controller = Dispatcher.DispatchController;
/** `origin` is the engine's endpoint. */
export type CallRequest = Dispatcher.DispatchOptions & { origin: string };
export type AnswerHeaders = Readonly<Record<string, string | string[] | undefined>>;

/**
 * One request to an engine, sent once, on a connection of its own. It follows no redirect. It handles undici's events
 * itself, because the streams that undici makes of an answer cost more.
 */
export abstract class EngineCall<Answer> implements Dispatcher.DispatchHandler {
  readonly #answer = Promise.withResolvers<Answer>();
  readonly #connections: EngineConnections;
  #connection: CallConnection | undefined;
  #controller: Controller | undefined;
  #abortError: Error | undefined;
  #interimAnswers = 0;

  constructor(connections: EngineConnections) {
    this.#connections = connections;
  }

  /**
   * Sends the request and resolves with its answer; call it once. The signal aborts the call until then. Rejects only
   * with an error that `onHead` throws.
   */
  async send(request: CallRequest, signal: AbortSignal): Promise<Answer> {
    const onAbort = () => this.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      if (signal.aborted) onAbort();
      else this.#open(request).send(request, this);
    } catch (error) {
      this.onFailed(error);
    }
    try {
      return await this.#answer.promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Fails the call at once, in any stage. A request that is not sent yet is never sent. */
  protected abort(reason: unknown): void {
    this.#abortError = reason instanceof Error ? reason : new Error(toErrorMessage(reason));
    this.onFailed(this.#abortError);
    this.#controller?.abort(this.#abortError);
    void this.#connection?.close();
  }

  /** False when there was no connection: the engine has not received the request. */
  protected get isSent(): boolean {
    return this.#controller !== undefined;
  }

  /** Sets the result of `send`. Later calls change nothing. */
  protected answer(answer: Answer): void {
    this.#answer.resolve(answer);
  }

  /** Called when the status line and the headers have arrived. An error that it throws ends the call. */
  protected abstract onHead(controller: Controller, status: number, headers: AnswerHeaders): void;
  /** Called in any stage. It may be called a second time, also after the end of the answer. */
  protected abstract onFailed(error: unknown): void;

  /** Called when the answer has ended properly. */
  protected abstract onEnded(): void;

  abstract onResponseData(controller: Controller, chunk: Buffer): void;

  onRequestStart(controller: Controller): void {
    if (this.#abortError) controller.abort(this.#abortError);
    else this.#controller = controller;
  }

  onResponseStart(controller: Controller, status: number, headers: AnswerHeaders): void {
    if (status < 200) {
      this.#countInterimAnswer();
      return;
    }
    try {
      this.onHead(controller, status, headers);
    } catch (error) {
      // undici would report this error as a failed connection, so `send` rejects with it here.
      this.#answer.reject(error);
      throw error;
    }
  }

  onResponseEnd(): void {
    this.#connection?.ended();
    this.onEnded();
  }

  onResponseError(_controller: unknown, error: unknown): void {
    this.#connection?.ended();
    this.onFailed(error);
  }

  #open({ origin }: CallRequest): CallConnection {
    this.#connection = this.#connections.open(origin);
    return this.#connection;
  }

  /** An engine may send answers of status 1xx before the final one, but not without end. */
  #countInterimAnswer(): void {
    this.#interimAnswers += 1;
    if (this.#interimAnswers <= MAX_INTERIM_ANSWERS) return;
    this.abort(new Error(`the engine sent more than ${MAX_INTERIM_ANSWERS} interim answers (status 1xx)`));
  }
}

/** The reason of a failed call, in one line. */
export function explainFailure(error: unknown): string {
  // A host name with several addresses fails with an AggregateError, whose own message is empty.
  if (error instanceof AggregateError && error.message === "") {
    return error.errors.map(explainFailure).join("; ");
  }
  return toErrorMessage(error);
}
