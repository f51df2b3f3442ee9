import type { EndReason } from "../../turns/model/turn-end.ts";

/** What each reason of a turn's end means to its readers. */
export const END_REASON_MEANINGS = {
  ENGINE_ERROR: "the engine reported an error, see `engineError`",
  ENGINE_CLOSED: "the engine closed its stream without an end",
  ENGINE_RESTARTED: "the engine's process was replaced while it worked on the turn",
  ENGINE_STOPPED: "the engine was stopped or destroyed while it worked on the turn",
  ENGINE_REFUSED: "the engine refused the request after the start had been answered",
  ENGINE_TIMEOUT:
    "the engine sent nothing for too long (ORCH_TURN_IDLE_TIMEOUT_S), or nobody answered its question (ORCH_HITL_TIMEOUT_S)",
  EVENT_TOO_LARGE: "one event is larger than ORCH_EVENT_MAX_BYTES",
  TURN_TOO_LARGE: "the turn is larger than ORCH_TURN_MAX_BYTES",
  LOG_LIMIT: "the product's turns have filled their part of the log for this hour",
  OWNER_LOST: "the replica that read the engine's stream has died, and the next one could not read on",
  DRAINING: "the replica that read the engine's stream was shut down",
  AWAITING_HUMAN: "the replica was shut down while the turn waited for a person",
  CANCELLED: "a caller cancelled the turn",
  OUTCOME_UNKNOWN: "the request was sent, and its answer was lost: the engine may have the turn or not",
  KEY_REVOKED:
    "the reader's key was revoked or has expired; only this reader's stream ends, and the turn goes on",
} as const satisfies Record<EndReason, string>;

/** The meanings as one text. */
export function toMeaningText(meanings: Readonly<Record<string, string>>): string {
  return Object.entries(meanings)
    .map(([name, meaning]) => `${name}: ${meaning}.`)
    .join(" ");
}
