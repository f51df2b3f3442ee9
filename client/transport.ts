import { ConnectionError, toConnectionError, toGivenUp, type Failure } from "./connection-error.ts";
import { toForeignError } from "./foreign-answer.ts";
import { mayTryAgain } from "./may-try-again.ts";
import type { ReplicaUrls } from "./replica-urls.ts";
import { parseReply, type Reply } from "./reply.ts";
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
  /** undefined: the body is a stream. */
  reply?: Reply | undefined;
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
        // A redirect to another origin would lose the key, and most kinds of redirect the body.
        redirect: "manual",
        headers: { "content-type": "application/json", ...request.headers, authorization: `Bearer ${key}` },
        ...(request.body !== undefined && { body: request.body }),
        ...(request.signal !== undefined && { signal: request.signal }),
      });
      if (request.isStream === true && isEventStream(response)) return response;
      return await readWhole({ url, key }, request, response);
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
      if (failure === undefined) return attempt.answer(failures, 0);
      giveUpAt ??= performance.now() + retry.callForMs;
      const isFinal = !mayTryAgain(failure, { mayRepeat, mayHaveArrived });
      const retryAfterMs = "retryAfterMs" in failure ? failure.retryAfterMs : undefined;
      const delayMs = toDelayMs(retry, { failures, replicas: replicas.count, retryAfterMs });
      if (isFinal || performance.now() + delayMs > giveUpAt)
        return attempt.answer(failures, giveUpAt - retry.callForMs);
      mayHaveArrived ||= failure.kind === "lost" || failure.kind === "gateway";
      await sleep(delayMs, request.signal);
    }
  }

  async #attempt(request: WireRequest): Promise<Attempt> {
    const url = this.replicas.current;
    try {
      const response = await this.sendOnce(request);
      const failure = toRefusal(response.reply);
      if (failure?.reason === "DRAINING") this.replicas.leave(url);
      return { failure, answer: () => Promise.resolve(response) };
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      return {
        failure: error.failure,
        answer: (attempts, sinceMs) => Promise.reject(toGivenUp(error, attempts, sinceMs)),
      };
    }
  }
}

interface Attempt {
  failure: Failure | undefined;
  /** The answer, or its error, if this is the last attempt. `sinceMs` is when the first attempt failed. */
  answer: (attempts: number, sinceMs: number) => Promise<Answer>;
}

function isEventStream({ ok, body, headers }: Response): boolean {
  return ok && body !== null && /^text\/event-stream\s*(;|$)/i.test(headers.get("content-type") ?? "");
}

/** An answer whose body has arrived completely. It can be read more than once. */
async function readWhole(
  { url, key }: { url: string; key: string },
  { path, body = "", isStream }: WireRequest,
  response: Response,
): Promise<Answer> {
  const text = await response.text();
  const reply = parseReply(text, response.status);
  if (reply === undefined || (isStream === true && "result" in reply)) {
    // Some servers show the headers of a request that they refuse.
    const shown = text.replaceAll(key, "[hidden]");
    throw toForeignError({ url, path, sentCharacters: body.length, response, text: shown });
  }
  const { ok, status, statusText, headers, redirected } = response;
  return {
    ok,
    status,
    statusText,
    headers,
    url: response.url,
    redirected,
    body: null,
    reply,
    json: async () => reply,
  };
}

function toRefusal(reply: Reply | undefined): (Failure & { kind: "refusal" }) | undefined {
  if (reply === undefined || "result" in reply) return undefined;
  const { reason, retryAfterMs } = reply.error.data;
  return { kind: "refusal", reason, retryAfterMs };
}
