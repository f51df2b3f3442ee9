import type { Failure } from "./connection-error.ts";

interface Attempt {
  /** Whether handling the request twice has the same effect as handling it once. */
  mayRepeat: boolean;
  /** Whether an earlier attempt may have reached a replica. */
  mayHaveArrived: boolean;
}

const BEFORE_ANYTHING: ReadonlySet<string> = new Set(["DRAINING", "RATE_LIMITED", "STREAM_LIMIT"]);

/** Whether the client may send the same request again: no effect can then happen twice. */
export function mayTryAgain(failure: Failure, { mayRepeat, mayHaveArrived }: Attempt): boolean {
  switch (failure.kind) {
    case "refused":
      return true;
    case "lost":
    case "gateway":
      // A replica may have received the request, whatever status the gateway answered. Some gateways answer 503 when
      // the connection to a replica breaks.
      return mayRepeat;
    case "foreign":
      return false;
    case "refusal":
      // The replica refused before it began anything.
      if (BEFORE_ANYTHING.has(failure.reason)) return true;
      if (failure.reason === "DATABASE_UNAVAILABLE") return mayRepeat;
      // The running call is an earlier attempt of this client. A later attempt gets its answer.
      return failure.reason === "IDEMPOTENCY_IN_PROGRESS" && mayRepeat && mayHaveArrived;
  }
}
