import type { ExceededLimit, TurnLimits } from "../../../db/turns.ts";
import { DomainError } from "../../errors.ts";
import { spreadRetry } from "../../time/spread-retry.ts";

/** Some turn ends within this time in most products. */
/** Of callers that wait for the same end of the hour. */
const HOUR_END_SPREAD_MS = 5_000;
const TURN_END_RETRY_MS = 2_000;

/** The refusal of a turn that would exceed a limit of its product. */
export function toLimitError(exceeded: ExceededLimit, limits: TurnLimits): DomainError {
  const { liveTurns, liveTurnsPerKey, logBytesPerHour } = limits;
  switch (exceeded.limit) {
    case "liveTurns":
      return tooManyTurns(
        `the product may have ${liveTurns} live turns at once (maxLiveTurns of its policy, else ORCH_MAX_LIVE_TURNS), and has them`,
      );
    case "liveTurnsPerKey":
      return tooManyTurns(
        `this key may have ${liveTurnsPerKey} live turns at once (maxLiveTurnsPerKey of its product's policy), and has them`,
      );
    case "logBytesPerHour": {
      const message =
        `the events of this product's turns have reached ${logBytesPerHour} bytes in this hour: start the turn when the next ` +
        "hour begins, or ask an operator to raise turnLogBytesPerHour of the policy, or ORCH_TURN_LOG_BYTES_PER_HOUR";
      const retryAfterMs = spreadRetry(exceeded.hourEndsInMs, HOUR_END_SPREAD_MS);
      return new DomainError("RATE_LIMITED", message, { retryAfterMs });
    }
  }
}

/** The refusal of a turn that would have to wait for its engine behind too many others. */
export function tooManyWaiting({ liveTurns }: Pick<TurnLimits, "liveTurns">): DomainError {
  return tooManyTurns(
    `${liveTurns} turns of the product wait for their engines already, as many as may be live (maxLiveTurns)`,
  );
}

function tooManyTurns(what: string): DomainError {
  return new DomainError(
    "STREAM_LIMIT",
    `${what}: start the turn when another has ended, or ask an operator to raise the limit`,
    { retryAfterMs: spreadRetry(TURN_END_RETRY_MS) },
  );
}
