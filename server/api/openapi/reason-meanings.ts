import type { Reason } from "../../errors.ts";

/** What each reason means, and what helps. */
export const REASON_MEANINGS = {
  INVALID_INPUT: "the request or a field of it is not valid, see `issues`; correct it",
  IMAGE_NOT_PINNED: "the image has no version tag and no digest; name one",
  REQUEST_TOO_LARGE: "the body or the URL is larger than this path allows; send less",
  INVALID_KEY: "the request has no key, or a key that does not exist; send another one",
  KEY_EXPIRED: "the key has expired; use another one",
  KEY_REVOKED: "the key was revoked; use another one",
  SCOPE_MISSING: "the key may not make this call; use a key with the scope",
  IMAGE_NOT_ALLOWED: "the image is none of those that callers may run; use one of them",
  ENGINE_NOT_FOUND: "the user has no engine; provision one",
  TURN_NOT_FOUND:
    "the product has no turn of this id, or the turn to answer has ended or not begun; the message says which",
  PRODUCT_NOT_FOUND: "there is no such product; check its slug or id",
  KEY_NOT_FOUND: "there is no such key; check its id",
  ENGINE_ALREADY_EXISTS: "the user has an engine; use that one",
  PRODUCT_SLUG_EXISTS: "another product has this slug; choose another one",
  OPERATOR_NAME_EXISTS:
    "another operator key that is not revoked has this name; revoke that key, or choose another name",
  PRODUCT_NOT_EMPTY: "the product has engines; destroy them, or send `destroyEngines: true`",
  ENGINE_BUSY: "turns or calls use the engine; try again later, or interrupt them",
  ENGINE_STOPPED: "the engine is stopped; start it",
  ENGINE_SLEEPING: "the engine is asleep; start it. Not used yet",
  ENGINE_DESTROYING: "the engine is being destroyed; provision another one after that",
  GENERATION_CHANGED: "the engine is of another generation than the call expects; read its state anew",
  TURN_IN_PROGRESS:
    "the task has a live turn, or its engine still works on a turn that has ended here; cancel the live turn, or start again after `retryAfterMs`",
  IDEMPOTENCY_IN_PROGRESS: "the first call with this key still runs; call again after `retryAfterMs`",
  OUTCOME_UNKNOWN: "the call may have had its effect; read the state before you call with a new key",
  VOLUME_MISSING: "the engine's data is not on its runtime; an operator must find or restore the volume",
  ROW_TAMPERED:
    "the database row was changed outside of the service, so it is not used; an operator must restore or check it",
  RUNTIME_UNCHANGED: "the runtime is the recorded one; there is nothing to accept",
  IDEMPOTENCY_MISMATCH: "the key or the turn id was used with another input; use a new one",
  NOT_SUPPORTED_BY_ENGINE: "the engine does not have this call; do without it",
  QUOTA_EXCEEDED:
    "the product has as many engines as its policy allows, or the engine's volume is full; destroy what is not needed, or ask an operator for a higher limit",
  RATE_LIMITED: "too much at once, and nothing has begun; call again after `retryAfterMs`",
  STREAM_LIMIT:
    "the product or the key has as many live turns or open streams as it may have, and nothing has begun; call again after `retryAfterMs`",
  PORT_EXHAUSTION: "no port is free for another engine; destroy engines, or widen the range",
  RUNTIME_UNREACHABLE: "the runtime does not answer; the message says whether the request is on record",
  RUNTIME_CHANGED: "another runtime answers than the recorded one; an operator must correct or accept it",
  ENGINE_UNHEALTHY:
    "the engine does not answer; call again after `retryAfterMs`, and without it start the engine",
  DRAINING: "this replica is shutting down; call again after `retryAfterMs`",
  DATABASE_UNAVAILABLE: "the database does not answer; call again after `retryAfterMs`",
  ENGINE_ERROR: "the engine answered with an error or nonsense, see `engineError`",
  IMAGE_UNAVAILABLE: "the image cannot be pulled; check its name",
  BOOT_TIMEOUT: "the engine was not ready within ORCH_BOOT_TIMEOUT_S; look at its log",
  BOOT_FAILED: "the engine's process has ended; the message has its exit code and last log lines",
  ENGINE_TIMEOUT: "the engine did not answer in time",
  DEADLINE_EXCEEDED: "the wait is over, and the work goes on; the same call with the same key waits for it",
  INTERNAL: "a defect of the service; report the request id",
} as const satisfies Record<Reason, string>;
