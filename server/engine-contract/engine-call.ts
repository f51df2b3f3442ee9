import type { Dispatcher } from "undici";
import { toErrorMessage } from "../errors.ts";
import type { EngineConnections } from "./connections.ts";

/** More than a proxy sends that says every second, for an hour, that it is still there. */
const MAX_INTERIMS = 4_000;

type Controller = Dispatcher.DispatchController;
export type AnswerHeaders = Readonly<Record<string, string | string[] | undefined>>;

/**
 * One request to an engine and what becomes of it, without the streams that undici would make of the answer. It queues
 * behind no other and is sent once: see `EngineConnections`. Redirects are not followed.
 */
export abstract class EngineCall<Answer> implements Dispatcher.DispatchHandler {
  readonly #answer = Promise.withResolvers<Answer>();
  readonly #connections: EngineConnections;
  #controller: Controller | undefined;
  #abortError: Error | undefined;
  #interims = 0;

  constructor(connections: EngineConnections) {
    this.#connections = connections;
  }

  /** Resolves with what the call answers; the signal aborts it until then. To be called once. Throws what `onHead` does. */
  async send(request: Dispatcher.DispatchOptions, signal: AbortSignal): Promise<Answer> {
    const onAbort = () => this.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    else this.#dispatch(request);
    try {
      return await this.#answer.promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Fails at once, at whatever stage it is; what is still to be sent will not be. */
  protected abort(reason: unknown): void {
    this.#abortError = reason instanceof Error ? reason : new Error(toErrorMessage(reason));
    this.onFailed(this.#abortError);
    this.#controller?.abort(this.#abortError);
  }

  /** False: there was no connection, and the engine cannot have seen the request. */
  protected get isSent(): boolean {
    return this.#controller !== undefined;
  }

  /** Only the first answer counts. */
  protected answer(answer: Answer): void {
    this.#answer.resolve(answer);
  }

  /** The status line and the headers of the answer are there. What it throws ends the call. */
  protected abstract onHead(controller: Controller, status: number, headers: AnswerHeaders): void;
  /** At any stage, and possibly once more, after the end too. */
  protected abstract onFailed(error: unknown): void;

  abstract onResponseData(controller: Controller, chunk: Buffer): void;
  abstract onResponseEnd(): void;

  onRequestStart(controller: Controller): void {
    if (this.#abortError) controller.abort(this.#abortError);
    else this.#controller = controller;
  }

  onResponseStart(controller: Controller, status: number, headers: AnswerHeaders): void {
    if (status < 200) {
      this.#hearInterim();
      return;
    }
    try {
      this.onHead(controller, status, headers);
    } catch (error) {
      // To undici it is one more way in which a connection fails.
      this.#answer.reject(error);
      throw error;
    }
  }

  onResponseError(_controller: unknown, error: unknown): void {
    this.onFailed(error);
  }

  /** 1xx come before the answer, and never one after the other for long. */
  #hearInterim(): void {
    this.#interims += 1;
    if (this.#interims > MAX_INTERIMS) this.abort(new Error("the engine sends interim answers without end"));
  }

  #dispatch(request: Dispatcher.DispatchOptions): void {
    try {
      this.#connections.dispatch(request, this);
    } catch (error) {
      this.onFailed(error);
    }
  }
}

/** What went wrong between us and an engine, in one line. */
export function explain(error: unknown): string {
  // A host name with several addresses fails with an aggregate, whose own message is empty.
  if (error instanceof AggregateError && error.message === "") return error.errors.map(explain).join("; ");
  return toErrorMessage(error);
}
