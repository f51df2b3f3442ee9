import {
  ConnectionError,
  findErrorData,
  isGatewayAnswer,
  mayTryAgain,
  toConnectionError,
  type Failure,
} from "./failure.ts";
import type { ReplicaUrls } from "./replica-urls.ts";
import { toDelayMs, type RetryOptions } from "./retry-options.ts";
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
  /** The input as JSON; always in the body, so that no log of URLs has it. */
  body: string | undefined;
  headers?: Readonly<Record<string, string>>;
  signal: AbortSignal | undefined;
  /** Leaves the body of a success to the caller, to be read as it comes. */
  isStream?: boolean;
}

/** As much of a Response as is looked at. */
export interface Answer extends Pick<
  Response,
  "ok" | "status" | "statusText" | "headers" | "url" | "redirected" | "body"
> {
  text(): Promise<string>;
  json(): Promise<unknown>;
}

/** How requests get to a replica. */
export class Transport {
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

  /** One attempt. Throws a ConnectionError unless the service itself answered, and what the signal says when it aborts. */
  async sendOnce(request: WireRequest): Promise<Answer> {
    const { replicas, key, fetch } = this.#options;
    const url = replicas.current;
    try {
      const response = await fetch(`${url}/trpc/${request.path}`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...request.headers,
          authorization: `Bearer ${key}`,
        },
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
   * Tries again, on the next replica and with growing pauses, as long as that cannot do anything twice. Throws the
   * last ConnectionError, and returns the last refusal.
   */
  async send(request: WireRequest, { mayRepeat }: { mayRepeat: boolean }): Promise<Answer> {
    const { retry, replicas } = this.#options;
    let mayHaveArrived = false;
    let givingUpAt: number | undefined;
    for (let failures = 1; ; failures += 1) {
      const attempt = await this.#attempt(request);
      const { failure } = attempt;
      if (failure === undefined) return attempt.answer();
      givingUpAt ??= performance.now() + retry.callForMs;
      const isHopeless = !mayTryAgain(failure, { mayRepeat, mayHaveArrived });
      const retryAfterMs = failure.kind === "refusal" ? failure.retryAfterMs : undefined;
      const delayMs = toDelayMs(retry, { failures, replicas: replicas.count, retryAfterMs });
      if (isHopeless || performance.now() + delayMs > givingUpAt) return attempt.answer();
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
    const failure = { kind: "gateway", status: response.status } as const;
    throw new ConnectionError(failure, `${url} answered ${response.status}, and not by a replica`);
  }
  return toAnswer(response, text);
}

/** With its body as it was read: it can be read again, and can no longer break off. */
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
  const data = findErrorData(text);
  return data && { kind: "refusal", reason: data.reason, retryAfterMs: data.retryAfterMs };
}
