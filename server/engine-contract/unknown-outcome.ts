import { DomainError } from "../errors.ts";

/**
 * Finds the OUTCOME_UNKNOWN in an error that a call threw: the error itself or one of its causes. A timeout or a
 * broken answer carries it as the cause, because the effect of the call is unknown as well.
 */
export function findUnknownOutcome(error: unknown): DomainError | undefined {
  if (!(error instanceof DomainError)) return undefined;
  return error.reason === "OUTCOME_UNKNOWN" ? error : findUnknownOutcome(error.cause);
}
