import { DomainError } from "../errors.ts";

/**
 * The OUTCOME_UNKNOWN in what a call threw: itself, or the cause of a time-out or a spoilt answer, which say how
 * the answer was lost but leave the effect just as unknown.
 */
export function findUnknownOutcome(error: unknown): DomainError | undefined {
  if (!(error instanceof DomainError)) return undefined;
  return error.reason === "OUTCOME_UNKNOWN" ? error : findUnknownOutcome(error.cause);
}
