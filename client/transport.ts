import { ConnectionError, toConnectionError, type Failure } from "./connection-error.ts";
import { findRefusalData, isGatewayAnswer } from "./error-reply.ts";
import { mayTryAgain } from "./may-try-again.ts";
import type { ReplicaUrls } from "./replica-urls.ts";
import { toDelayMs, type RetryOptions } from "./retry-options.ts";
import { SignalFollowers } from "./signal-followers.ts";
import { sleep } from "./sleep.ts";

export interface TransportOptions {
  replicas: ReplicaUrls;
  key: string;
  fetch: typeof globalThis.fetch;
  retry: RetryOptions;
}

export interface WireRequest {
  /** A procedure, such as `turns.events`. */
  path: string;
  /** The input as JSON. It is always in the body, so that logs of URLs do not have it. */
  body: string | undefined;
  headers?: Readonly<Record<string, string>>;
  signal: AbortSignal | undefined;
  /** The caller reads the body of a success as it arrives. */
  isStream?: boolean;
}

/** The part of a Response that tRPC and this client use. */
export interface Answer extends Pick<
  Response,
  "ok" | "status" | "statusText" | "headers" | "url" | "redirected" | "body"
> {
  text(): Promise<string>;
  json(): Promise<unknown>;
}

/** Sends requests to the current replica, and to the next one when that fails. */
export class Transport {
  readonly signals = new SignalFollowers();
  readonly #options: TransportOptions;

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  get replicas(): ReplicaUrls {
    return this.#options.replicas;
  }

  get retry(): RetryOptions {
    return this.#options.retry;
  }

  /** Makes one attempt. Throws a ConnectionError unless a replica answered; on an abort, the signal's reason. */
  async sendOnce(request: WireRequest): Promise<Answer> {
    const { replicas, key, fetch } = this.#options;
    const url = replicas.current;
    try {
      const response = await fetch(`${url}/trpc/${request.path}`, {
        method: "POST",
        headers: { "content-type": "application/json", ...request.headers, authorization: `Bearer ${key}` },
        ...(request.body !== undefined && { body: request.body }),
        ...(request.signal !== undefined && { signal: request.signal }),
      });
      if (response.ok && request.isStream === true) return response;
      return await readWhole(url, response);
    } catch (error) {
      request.signal?.throwIfAborted();
      replicas.leave(url);
      throw toConnectionError(url, error);
    }
  }

  /**
   * Tries again with growing pauses, on the next replica, as long as nothing can be done twice. When it gives up, it
   * throws the last ConnectionError or returns the last refusal.
   */
  async send(request: WireRequest, { mayRepeat }: { mayRepeat: boolean }): Promise<Answer> {
    const { retry, replicas } = this.#options;
    let mayHaveArrived = false;
    let giveUpAt: number | undefined;
    for (let failures = 1; ; failures += 1) {
      const attempt = await this.#attempt(request);
      const { failure } = attempt;
      if (failure === undefined) return attempt.answer();
      giveUpAt ??= performance.now() + retry.callForMs;
      const isFinal = !mayTryAgain(failure, { mayRepeat, mayHaveArrived });
      const retryAfterMs = failure.kind === "refusal" ? failure.retryAfterMs : undefined;
      const delayMs = toDelayMs(retry, { failures, replicas: replicas.count, retryAfterMs });
      if (isFinal || performance.now() + delayMs > giveUpAt) return attempt.answer();
      mayHaveArrived ||= failure.kind === "lost" || failure.kind === "gateway";
      await sleep(delayMs, request.signal);
    }
  }

  async #attempt(
    request: WireRequest,
  ): Promise<{ failure: Failure | undefined; answer: () => Promise<Answer> }> {
    const url = this.replicas.current;
    try {
      const response = await this.sendOnce(request);
      const failure = response.ok ? undefined : toRefusal(await response.text());
      if (failure?.reason === "DRAINING") this.replicas.leave(url);
      return { failure, answer: () => Promise.resolve(response) };
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      return { failure: error.failure, answer: () => Promise.reject(error) };
    }
  }
}

async function readWhole(url: string, response: Response): Promise<Answer> {
  const text = await response.text();
  if (isGatewayAnswer(response.status, text)) {
    const message = `a gateway at ${url} answered ${response.status} instead of a replica`;
    throw new ConnectionError({ kind: "gateway", status: response.status }, message);
  }
  return toAnswer(response, text);
}

/** An answer whose body has arrived completely. It can be read more than once. */
function toAnswer(answer: Answer, text: string): Answer {
  const { ok, status, statusText, headers, url, redirected } = answer;
  return {
    ok,
    status,
    statusText,
    headers,
    url,
    redirected,
    body: null,
    text: async () => text,
    json: async () => JSON.parse(text) as unknown,
  };
}

function toRefusal(text: string): (Failure & { kind: "refusal" }) | undefined {
  const data = findRefusalData(text);
  return data && { kind: "refusal", reason: data.reason, retryAfterMs: data.retryAfterMs };
}
