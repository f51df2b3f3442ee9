import type { Failure } from "./connection-error.ts";

interface Attempt {
  /** Whether the request has the same effect when it is handled twice. */
  mayRepeat: boolean;
  /** Whether an earlier attempt may have reached a replica. */
  mayHaveArrived: boolean;
}

/** Whether the client may send the same request again, without the risk of doing anything twice. */
export function mayTryAgain(failure: Failure, { mayRepeat, mayHaveArrived }: Attempt): boolean {
  switch (failure.kind) {
    case "refused":
      return true;
    case "lost":
    case "gateway":
      // Whatever a gateway's status, a replica may have the request: some answer 503 when a replica breaks off.
      return mayRepeat;
    case "refusal":
      if (failure.reason === "DRAINING") return true;
      if (failure.reason === "DATABASE_UNAVAILABLE") return mayRepeat;
      // The running call is our own lost attempt, so wait for its answer.
      return failure.reason === "IDEMPOTENCY_IN_PROGRESS" && mayRepeat && mayHaveArrived;
  }
}
