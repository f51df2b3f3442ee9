import type { Reason } from "./enginehouse-error.ts";

/** How one attempt failed, as far as it decides whether there may be another. */
export type Failure =
  /** No connection came about: nobody has the request. */
  | { kind: "refused" }
  /** The connection broke: the request may have been carried out. */
  | { kind: "lost" }
  /** Something in between answered, and no replica of ours. */
  | { kind: "gateway"; status: number }
  | { kind: "refusal"; reason: Reason; retryAfterMs?: number | undefined };

/** No answer of the service: nothing listened, the connection broke, or a gateway answered in its place. */
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

/** Node says why a fetch failed; browsers do not, and there every failure may have come after the request. */
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

const GATEWAY_STATUSES: readonly number[] = [502, 503, 504];

/** Whether an answer that is not a success came from something in between: ours say so in JSON. */
export function isGatewayAnswer(status: number, text: string): boolean {
  return GATEWAY_STATUSES.includes(status) && findErrorData(text) === undefined;
}

interface ErrorData {
  reason: Reason;
  retryAfterMs?: number;
}

/** `error.data` of a reply of ours. */
export function findErrorData(text: string): ErrorData | undefined {
  try {
    const reply = JSON.parse(text) as { error?: { data?: Partial<ErrorData> } } | null;
    const data = reply?.error?.data;
    return typeof data?.reason === "string" ? (data as ErrorData) : undefined;
  } catch {
    return undefined;
  }
}

interface Attempt {
  /** Whether carrying the request out twice has the effect of once. */
  mayRepeat: boolean;
  /** Whether an earlier attempt may have reached a replica. */
  mayHaveArrived: boolean;
}

/** Whether the same request may be sent again, so that nothing is ever done twice. */
export function mayTryAgain(failure: Failure, { mayRepeat, mayHaveArrived }: Attempt): boolean {
  switch (failure.kind) {
    case "refused":
      return true;
    case "lost":
      return mayRepeat;
    case "gateway":
      // Whatever its status, the request may have reached a replica: some answer 503 when that one breaks off.
      return mayRepeat;
    case "refusal":
      return mayAskAgain(failure.reason, { mayRepeat, mayHaveArrived });
  }
}

function mayAskAgain(reason: Reason, { mayRepeat, mayHaveArrived }: Attempt): boolean {
  switch (reason) {
    case "DRAINING":
      return true;
    case "DATABASE_UNAVAILABLE":
      return mayRepeat;
    case "IDEMPOTENCY_IN_PROGRESS":
      // What is in progress is our own lost attempt: its answer is worth waiting for.
      return mayRepeat && mayHaveArrived;
    default:
      return false;
  }
}
