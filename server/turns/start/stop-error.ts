import { DomainError } from "../../errors.ts";
import { CANCELLED_UNSENT, type EndCause } from "../model/turn-end.ts";

/** What the callers of start get when the turn was stopped before its engine had it. */
export function toStopError(cause: EndCause): DomainError {
  const message = cause.message ?? "the turn was stopped";
  switch (cause.reason) {
    case "DRAINING":
      return new DomainError("DRAINING", message, { retryAfterMs: 1_000 });
    case "ENGINE_STOPPED":
      return new DomainError("ENGINE_STOPPED", message);
    case "CANCELLED":
      return new DomainError("TURN_NOT_FOUND", CANCELLED_UNSENT.message ?? message);
    default:
      return new DomainError("ENGINE_UNHEALTHY", message, { retryAfterMs: 1_000 });
  }
}
