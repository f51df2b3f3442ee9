import { findReason, toEnginehouseError } from "./enginehouse-error.ts";
import type { FailureReason } from "./reason.ts";
import type { TurnEnd } from "./turn-event.ts";

/** What a gateway may tell a user about a failure. It never has an address, or an engine's words. */
export interface PublicError {
  reason: FailureReason;
  /** For people. Programs and translations use `reason`. */
  message: string;
  /** Operators find the request in the log by this id. */
  requestId?: string;
  /** The same request may work after this time. */
  retryAfterMs?: number;
}

interface Kind {
  /** The HTTP status of a refusal. */
  status: number;
  message: string;
}

const KINDS = {
  invalid: { status: 400, message: "the request is not valid: correct it" },
  absent: { status: 404, message: "there is no such conversation or assistant for this user" },
  cancelled: { status: 409, message: "the turn was cancelled" },
  busy: { status: 409, message: "the message before this one is not finished: wait for it, or cancel it" },
  unready: { status: 409, message: "the assistant does not run at the moment" },
  unknown: {
    status: 409,
    message: "it is unknown whether the message arrived: look before you send it again",
  },
  missing: { status: 410, message: "a part of the answer is not kept any more" },
  tooLarge: { status: 413, message: "the message is too large: send a smaller one" },
  otherUse: { status: 422, message: "this id belongs to another message: use a new id" },
  unsupported: { status: 422, message: "the assistant cannot do this" },
  tooMany: { status: 429, message: "there are too many requests: wait, then try again" },
  broken: { status: 500, message: "the service has a fault that its operators must correct" },
  failed: { status: 502, message: "the assistant could not answer" },
  answerTooLarge: { status: 502, message: "the answer is too large" },
  away: { status: 503, message: "the service is not available at the moment: try again later" },
  waiting: { status: 503, message: "the assistant waits for a person's answer" },
  slow: { status: 504, message: "the assistant did not answer in time" },
} as const satisfies Readonly<Record<string, Kind>>;

/** The caller of the service is the gateway, so what is wrong with its key is a fault of the gateway (500). */
const KIND_OF: Readonly<Record<FailureReason, keyof typeof KINDS>> = {
  INVALID_INPUT: "invalid",
  IMAGE_NOT_PINNED: "broken",
  REQUEST_TOO_LARGE: "tooLarge",
  INVALID_KEY: "broken",
  KEY_EXPIRED: "broken",
  KEY_REVOKED: "broken",
  SCOPE_MISSING: "broken",
  IMAGE_NOT_ALLOWED: "broken",
  ENGINE_NOT_FOUND: "absent",
  TURN_NOT_FOUND: "absent",
  PRODUCT_NOT_FOUND: "broken",
  KEY_NOT_FOUND: "broken",
  ENGINE_ALREADY_EXISTS: "unready",
  PRODUCT_SLUG_EXISTS: "broken",
  OPERATOR_NAME_EXISTS: "broken",
  PRODUCT_NOT_EMPTY: "broken",
  ENGINE_BUSY: "busy",
  ENGINE_STOPPED: "unready",
  ENGINE_SLEEPING: "unready",
  ENGINE_DESTROYING: "unready",
  GENERATION_CHANGED: "unready",
  TURN_IN_PROGRESS: "busy",
  IDEMPOTENCY_IN_PROGRESS: "busy",
  OUTCOME_UNKNOWN: "unknown",
  VOLUME_MISSING: "broken",
  ROW_TAMPERED: "broken",
  RUNTIME_UNCHANGED: "broken",
  IDEMPOTENCY_MISMATCH: "otherUse",
  NOT_SUPPORTED_BY_ENGINE: "unsupported",
  QUOTA_EXCEEDED: "tooMany",
  RATE_LIMITED: "tooMany",
  STREAM_LIMIT: "tooMany",
  LOG_LIMIT: "tooMany",
  PORT_EXHAUSTION: "away",
  RUNTIME_UNREACHABLE: "away",
  RUNTIME_CHANGED: "away",
  ENGINE_UNHEALTHY: "away",
  ENGINE_RESTARTED: "away",
  OWNER_LOST: "away",
  DRAINING: "away",
  DATABASE_UNAVAILABLE: "away",
  CONNECTION_LOST: "away",
  CLIENT_CLOSED: "away",
  AWAITING_HUMAN: "waiting",
  ENGINE_ERROR: "failed",
  ENGINE_CLOSED: "failed",
  ENGINE_REFUSED: "failed",
  IMAGE_UNAVAILABLE: "failed",
  BOOT_FAILED: "failed",
  EVENT_TOO_LARGE: "answerTooLarge",
  TURN_TOO_LARGE: "answerTooLarge",
  BOOT_TIMEOUT: "slow",
  ENGINE_TIMEOUT: "slow",
  DEADLINE_EXCEEDED: "slow",
  EVENTS_MISSING: "missing",
  UNEXPECTED_ANSWER: "broken",
  CANCELLED: "cancelled",
  INTERNAL: "broken",
};

/** A newer service may give a reason that this version of the client does not know. */
function findKind(reason: FailureReason): Kind {
  return Object.hasOwn(KIND_OF, reason) ? KINDS[KIND_OF[reason]] : KINDS.broken;
}

/** What a gateway may tell a user about anything that was thrown. An error of the gateway itself is INTERNAL. */
export function toPublicError(thrown: unknown): PublicError {
  if (findReason(thrown) === undefined) return { reason: "INTERNAL", message: KINDS.broken.message };
  const { reason, requestId, retryAfterMs } = toEnginehouseError(thrown);
  const error: PublicError = { reason, message: findKind(reason).message };
  if (requestId !== undefined) error.requestId = requestId;
  if (retryAfterMs !== undefined) error.retryAfterMs = retryAfterMs;
  return error;
}

/** The refusal of a request, for a browser: a real status, `{ error: PublicError }`, and `Retry-After` in seconds. */
export function toErrorResponse(thrown: unknown): Response {
  const error = toPublicError(thrown);
  const headers = new Headers({ "cache-control": "no-store" });
  if (error.retryAfterMs !== undefined)
    headers.set("retry-after", String(Math.ceil(error.retryAfterMs / 1000)));
  return Response.json({ error }, { status: findKind(error.reason).status, headers });
}

/** The end of a turn with our words in place of the service's and the engine's. The engine's error keeps its code. */
export function toPublicEnd(end: TurnEnd): TurnEnd {
  const message = end.reason === null ? null : findKind(end.reason).message;
  const engineError = end.engineError && {
    code: toPublicCode(end.engineError.code),
    message: KINDS.failed.message,
  };
  return { ...end, message, engineError };
}

/** An engine's error code is a name. Anything else might be a sentence with an address. */
export function toPublicCode(code: unknown): string {
  return typeof code === "string" && /^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(code) ? code : "ENGINE_ERROR";
}
