import type { Failure } from "./connection-error.ts";
import type { Reason } from "./reason.ts";

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
      return mayRepeat;
    case "gateway":
      // A replica may have the request, whatever the status: some gateways answer 503 when a replica breaks off.
      return mayRepeat;
    case "refusal":
      return mayRepeatRefused(failure.reason, { mayRepeat, mayHaveArrived });
  }
}

function mayRepeatRefused(reason: Reason, { mayRepeat, mayHaveArrived }: Attempt): boolean {
  switch (reason) {
    case "DRAINING":
      return true;
    case "DATABASE_UNAVAILABLE":
      return mayRepeat;
    case "IDEMPOTENCY_IN_PROGRESS":
      // The running call is our own lost attempt, so wait for its answer.
      return mayRepeat && mayHaveArrived;
    default:
      return false;
  }
}
