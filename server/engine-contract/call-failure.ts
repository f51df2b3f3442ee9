import { DomainError, type EngineErrorDetail, type Reason } from "../errors.ts";
import type { Secrets } from "../secrets/secrets.ts";
import { toDetails, toHint, toMediaType } from "./errors.ts";
import type { EngineAnswer, ExchangeResult } from "./exchange.ts";

type FailedExchange = Extract<ExchangeResult, { kind: "failed" }>;

const MESSAGE_MAX_LENGTH = 2_000;
const UNKNOWN_EFFECT =
  "whether the call had its effect is unknown: check the engine's state before you call again, with a new idempotency key";

/** What a caller knows about a call with a JSON answer. */
export interface CallKind {
  path: "/rpc" | "/hitl/respond" | "/execute/cancel";
  /** True when the call changes nothing, so a lost answer is a plain failure. Otherwise the outcome is unknown. */
  readOnly: boolean;
  /** True when engines may lack the call. Then 404 and 405 mean that, and a success may have an empty answer. */
  isOptional?: boolean;
  /** The member that a success has. undefined: any JSON object is one. */
  member?: string;
}

/** The engine has `/hitl/respond`, and the task has no open question. The status of the answer may be any 4xx. */
export const NO_PENDING_REQUEST = "NO_PENDING_REQUEST";

/** The contract's error envelope in the body of an answer; undefined when there is none. */
export function findReportedError(
  status: number,
  body: Readonly<Record<string, unknown>>,
  secrets: Secrets,
): EngineErrorDetail | undefined {
  const { error: code, message, details } = body;
  if (typeof code !== "string") return undefined;
  const clean = (words: string) => secrets.hideInStart(words, MESSAGE_MAX_LENGTH);
  const text = typeof message === "string" ? message : code;
  return { status, code: clean(code), message: clean(text), ...toDetails(details, secrets) };
}

/** The error for the caller when an answer has no result. `engineError` is the answer's envelope, if it has one. */
export function toAnswerFailure(
  answer: EngineAnswer,
  engineError: EngineErrorDetail | undefined,
  call: CallKind,
): DomainError {
  const { status } = answer;
  const { path, isOptional = false } = call;
  if (engineError && mayHaveActed(status, call)) return toUnknownEffect(engineError);
  const fail = (reason: Reason, message: string, retryAfterMs?: number) =>
    new DomainError(reason, withReport(message, engineError), { engineError, retryAfterMs });
  if (isOptional && engineError?.code === NO_PENDING_REQUEST) {
    return fail("ENGINE_ERROR", "the engine has no open question of this task");
  }
  if (status === 401) return new DomainError("ENGINE_ERROR", "the engine refused its key", { engineError });
  if (status === 409) return fail("ENGINE_BUSY", "the engine is busy", 1_000);
  if (status === 503) return fail("ENGINE_UNHEALTHY", "the engine is starting or draining", 1_000);
  const isAbsent = status === 404 || status === 405;
  if (engineError && !(isAbsent && isOptional)) return fail("ENGINE_ERROR", "the engine reported an error");
  if (isAbsent) {
    return fail("NOT_SUPPORTED_BY_ENGINE", `the engine does not support ${path} (status ${status})`);
  }
  return toUnusable(answer, call);
}

function withReport(message: string, engineError: EngineErrorDetail | undefined): string {
  return engineError ? `${message}: ${engineError.code}: ${engineError.message}` : message;
}

function toUnknownEffect(engineError: EngineErrorDetail): DomainError {
  const message = withReport(`the engine reported an error (status ${engineError.status})`, engineError);
  return new DomainError("ENGINE_ERROR", `${message}; ${UNKNOWN_EFFECT}`, {
    engineError,
    cause: unknownEffect(),
  });
}

function toUnusable(
  { status, contentType, text }: EngineAnswer,
  { readOnly, member }: CallKind,
): DomainError {
  const answered = `status ${status}, ${toMediaType(contentType)}, ${Buffer.byteLength(text)} bytes`;
  const wanted = member === undefined ? "" : ` with a ${member} or an error`;
  const message = `the engine's answer is no JSON object${wanted} (${answered})${toHint(status)}`;
  if (readOnly) return new DomainError("ENGINE_ERROR", message);
  return new DomainError("ENGINE_ERROR", `${message}; ${UNKNOWN_EFFECT}`, { cause: unknownEffect() });
}

/** An error envelope with 4xx or 503 means that the engine did nothing. Another 5xx may come after the effect. */
function mayHaveActed(status: number, { readOnly }: CallKind): boolean {
  const isRedirect = status >= 300 && status < 400;
  return !readOnly && (isRedirect || (status >= 500 && status !== 503));
}

function unknownEffect(): DomainError {
  return new DomainError(
    "OUTCOME_UNKNOWN",
    `the engine answered with an error or without a result; ${UNKNOWN_EFFECT}`,
  );
}

/** The error for the caller when no whole answer arrived. */
export function toExchangeFailure(
  exchange: FailedExchange,
  { timeoutMs, readOnly }: { timeoutMs: number; readOnly: boolean },
  ended: { timedOut: boolean; interrupted: AbortSignal },
): DomainError {
  const isUnknown = exchange.stage !== "connecting" && !readOnly;
  const effect = isUnknown ? `; ${UNKNOWN_EFFECT}` : "";
  const cause = isUnknown
    ? new DomainError("OUTCOME_UNKNOWN", `the engine's answer was lost${effect}`)
    : undefined;
  if (ended.timedOut) {
    return new DomainError("ENGINE_TIMEOUT", `the engine did not answer within ${timeoutMs} ms${effect}`, {
      cause,
    });
  }
  if (ended.interrupted.aborted) return toInterruption(ended.interrupted, isUnknown);
  if (exchange.stage === "answering") {
    const message = `the engine's answer is not usable: ${exchange.why}${effect}`;
    return new DomainError("ENGINE_ERROR", message, { cause });
  }
  if (cause) return cause;
  const message = `the engine is not reachable: ${exchange.why}`;
  return new DomainError("ENGINE_UNHEALTHY", message, { retryAfterMs: 1_000 });
}

function toInterruption(interrupted: AbortSignal, isUnknown: boolean): DomainError {
  const isStop = interrupted.reason === "ENGINE_STOPPED";
  const message = `the engine was ${isStop ? "stopped" : "restarted"} during the call`;
  if (isUnknown) return new DomainError("OUTCOME_UNKNOWN", `${message}; ${UNKNOWN_EFFECT}`);
  return isStop
    ? new DomainError("ENGINE_STOPPED", message)
    : new DomainError("ENGINE_UNHEALTHY", message, { retryAfterMs: 1_000 });
}
