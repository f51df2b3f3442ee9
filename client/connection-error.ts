import type { Reason } from "./reason.ts";

/** How one attempt failed. This decides whether the client tries again. */
export type Failure =
  /** There was no connection: no replica has the request. */
  | { kind: "refused" }
  /** The connection broke: a replica may have handled the request. */
  | { kind: "lost" }
  /** A gateway answered instead of a replica. */
  | { kind: "gateway"; status: number }
  | { kind: "refusal"; reason: Reason; retryAfterMs?: number | undefined };

/** No replica answered: the connection failed or broke, or a gateway answered. */
export class ConnectionError extends Error {
  readonly failure: Failure;

  constructor(failure: Failure, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "ConnectionError";
    this.failure = failure;
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
    : new ConnectionError({ kind: "lost" }, `the connection to ${url} broke`, error);
}

function findCode(error: unknown): string | undefined {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ("code" in at && typeof at.code === "string") return at.code;
  }
  return undefined;
}
