import type { EngineErrorDetail } from "../../errors.ts";

export const END_STATUSES = ["completed", "failed", "interrupted", "cancelled"] as const;

export const END_REASONS = [
  "ENGINE_ERROR",
  "ENGINE_CLOSED",
  "ENGINE_RESTARTED",
  "ENGINE_STOPPED",
  "ENGINE_REFUSED",
  "ENGINE_TIMEOUT",
  "EVENT_TOO_LARGE",
  "TURN_TOO_LARGE",
  "LOG_LIMIT",
  "OWNER_LOST",
  "DRAINING",
  "AWAITING_HUMAN",
  "CANCELLED",
  "OUTCOME_UNKNOWN",
  "KEY_REVOKED",
] as const;
export type EndReason = (typeof END_REASONS)[number];

/** How a turn ended. Every turn has one, after its last event. */
export interface TurnEnd {
  status: (typeof END_STATUSES)[number];
  /** null only when completed. */
  reason: EndReason | null;
  message: string | null;
  engineError: Omit<EngineErrorDetail, "status"> | null;
  /** The end's own sequence number: one past the last event, or past everything that may have been delivered. */
  lastSeq: number;
  /** The engine may still work on the task, although we do not read its stream any more. */
  engineMayContinue: boolean;
}

/** An end without its sequence number. */
export type EndCause = Omit<TurnEnd, "lastSeq">;

export const COMPLETED: EndCause = {
  status: "completed",
  reason: null,
  message: null,
  engineError: null,
  engineMayContinue: false,
};

/** By default there is no error of the engine, and the engine may go on. */
export function toEndCause(
  status: Exclude<TurnEnd["status"], "completed">,
  reason: EndReason,
  rest: { message: string } & Partial<Pick<TurnEnd, "engineError" | "engineMayContinue">>,
): EndCause {
  return { status, reason, engineError: null, engineMayContinue: true, ...rest };
}

/** The engine may go on until it says that it has ended its turn. */
export const CANCELLED = toEndCause("cancelled", "CANCELLED", {
  message: "the turn was cancelled; its engine was not told",
});
export const CANCELLED_BY_ENGINE: EndCause = {
  ...CANCELLED,
  message: "the turn was cancelled, and its engine has ended it",
  engineMayContinue: false,
};
/** For a turn that its engine never had. */
export const CANCELLED_UNSENT = toEndCause("cancelled", "CANCELLED", {
  message: "the turn was cancelled before its engine had it",
  engineMayContinue: false,
});

export function parseEnd(text: string): TurnEnd {
  return JSON.parse(text) as TurnEnd;
}
