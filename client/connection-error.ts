import type { Reason } from "./reason.ts";

/** How one attempt failed. This decides whether the client tries again. */
export type Failure =
  /** There was no connection: no replica has the request. */
  | { kind: "refused" }
  /** The connection broke: a replica may have handled the request. */
  | { kind: "lost" }
  /** A gateway answered instead of a replica, with a status for trouble that may pass. */
  | { kind: "gateway"; status: number; retryAfterMs?: number | undefined }
  /** Something other than a replica answered, and will answer the same again. */
  | { kind: "foreign"; reason: "UNEXPECTED_ANSWER" | "REQUEST_TOO_LARGE" }
  | { kind: "refusal"; reason: Reason; retryAfterMs?: number | undefined };

/** No replica answered: the connection failed or broke, or something else answered. */
export class ConnectionError extends Error {
  readonly failure: Exclude<Failure, { kind: "refusal" }>;

  constructor(failure: ConnectionError["failure"], message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "ConnectionError";
    this.failure = failure;
  }

  get reason(): "CONNECTION_LOST" | "UNEXPECTED_ANSWER" | "REQUEST_TOO_LARGE" | "RATE_LIMITED" {
    const { failure } = this;
    if (failure.kind === "foreign") return failure.reason;
    return failure.kind === "gateway" && failure.status === 429 ? "RATE_LIMITED" : "CONNECTION_LOST";
  }

  get retryAfterMs(): number | undefined {
    return this.failure.kind === "gateway" ? this.failure.retryAfterMs : undefined;
  }
}

const REFUSED_CODES: readonly unknown[] = [
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
];

/** Browsers hide why a fetch failed, so there each failure counts as "lost": the request may have arrived. */
export function toConnectionError(url: string, error: unknown): ConnectionError {
  if (error instanceof ConnectionError) return error;
  const code = findCode(error);
  return REFUSED_CODES.includes(code)
    ? new ConnectionError({ kind: "refused" }, `${url} cannot be reached (${code})`, error)
    : new ConnectionError(
        { kind: "lost" },
        `the connection to ${url} broke (${code ?? toWhy(error)})`,
        error,
      );
}

/** The error after the last attempt, whose message tells how long the client has tried. */
export function toGivenUp(last: ConnectionError, attempts: number, sinceMs: number): ConnectionError {
  if (attempts === 1) return last;
  const seconds = ((performance.now() - sinceMs) / 1_000).toFixed(1);
  const message = `${last.message}; the client gave up after ${attempts} attempts in ${seconds} s`;
  return new ConnectionError(last.failure, message, last);
}

function findCode(error: unknown): string | undefined {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ("code" in at && typeof at.code === "string") return at.code;
  }
  return undefined;
}

/** The message of the innermost cause: fetch itself says only that it failed. */
function toWhy(error: unknown): string {
  let why = String(error);
  for (let at: unknown = error; at instanceof Error; at = at.cause) why = at.message;
  return why;
}
