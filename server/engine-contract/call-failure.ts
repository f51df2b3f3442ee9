import { DomainError, type EngineErrorDetail, type Reason } from "../errors.ts";
import type { Secrets } from "../secrets/secrets.ts";
import { toDetails, toHint, toMediaType } from "./errors.ts";
import type { EngineAnswer, ExchangeResult } from "./exchange.ts";

type FailedExchange = Extract<ExchangeResult, { kind: "failed" }>;

export const RPC_MAX_DEPTH = 128;
const MESSAGE_MAX_LENGTH = 2_000;
const UNKNOWN_EFFECT = "whether the call had its effect is unknown";

export interface KnownSecrets {
  secrets: Secrets;
  /** The engine got it with the call. */
  apiKey: string;
}

/** The contract's error envelope in the body of an answer to `/rpc`; undefined when there is none. */
export function findReportedError(
  status: number,
  body: Readonly<Record<string, unknown>>,
  { secrets, apiKey }: KnownSecrets,
): EngineErrorDetail | undefined {
  const { error: code, message, details } = body;
  if (typeof code !== "string") return undefined;
  const all = secrets.and(apiKey);
  const clean = (words: string) => all.hideInStart(words, MESSAGE_MAX_LENGTH);
  const text = typeof message === "string" ? message : code;
  return { status, code: clean(code), message: clean(text), ...toDetails(details, all) };
}

/** The error for the caller when an answer has no result. `engineError` is the answer's envelope, if it has one. */
export function toAnswerFailure(
  { status, contentType, text }: EngineAnswer,
  engineError: EngineErrorDetail | undefined,
  readOnly: boolean,
): DomainError {
  const reported = engineError && `${engineError.code}: ${engineError.message}`;
  const fail = (reason: Reason, message: string, retryAfterMs?: number) =>
    new DomainError(reason, reported ? `${message}: ${reported}` : message, { engineError, retryAfterMs });
  if (status === 401) return new DomainError("ENGINE_ERROR", "the engine refused its key", { engineError });
  if (status === 409) return fail("ENGINE_BUSY", "the engine is busy", 1_000);
  if (status === 503) return fail("ENGINE_UNHEALTHY", "the engine is starting or draining", 1_000);
  if (engineError) return fail("ENGINE_ERROR", "the engine reported an error");
  if (status === 404 || status === 405) {
    return fail("NOT_SUPPORTED_BY_ENGINE", `the engine does not support /rpc (status ${status})`);
  }
  const answered = `status ${status}, ${toMediaType(contentType)}, ${Buffer.byteLength(text)} bytes`;
  const message = `the engine's answer is no JSON object with a result or an error (${answered})${toHint(status)}`;
  const cause = readOnly ? undefined : new DomainError("OUTCOME_UNKNOWN", UNKNOWN_EFFECT);
  return new DomainError("ENGINE_ERROR", message, { cause });
}

/** The error for the caller when no whole answer arrived. */
export function toExchangeFailure(
  exchange: FailedExchange,
  { timeoutMs, readOnly }: { timeoutMs: number; readOnly: boolean },
  ended: { timedOut: boolean; interrupted: AbortSignal },
): DomainError {
  const mayHaveActed = exchange.stage !== "connecting" && !readOnly;
  const effect = mayHaveActed ? `; ${UNKNOWN_EFFECT}` : "";
  const cause = mayHaveActed
    ? new DomainError("OUTCOME_UNKNOWN", `the engine's answer was lost${effect}`)
    : undefined;
  if (ended.timedOut) {
    return new DomainError("ENGINE_TIMEOUT", `the engine did not answer within ${timeoutMs} ms${effect}`, {
      cause,
    });
  }
  if (ended.interrupted.aborted) return toInterruption(ended.interrupted, mayHaveActed);
  if (exchange.stage === "answering") {
    const message = `the engine's answer is not usable: ${exchange.why}${effect}`;
    return new DomainError("ENGINE_ERROR", message, { cause });
  }
  if (cause) return cause;
  const message = `the engine is not reachable: ${exchange.why}`;
  return new DomainError("ENGINE_UNHEALTHY", message, { retryAfterMs: 1_000 });
}

function toInterruption(interrupted: AbortSignal, mayHaveActed: boolean): DomainError {
  const isStop = interrupted.reason === "ENGINE_STOPPED";
  const message = `the engine was ${isStop ? "stopped" : "restarted"} during the call`;
  if (mayHaveActed) return new DomainError("OUTCOME_UNKNOWN", `${message}; ${UNKNOWN_EFFECT}`);
  return isStop
    ? new DomainError("ENGINE_STOPPED", message)
    : new DomainError("ENGINE_UNHEALTHY", message, { retryAfterMs: 1_000 });
}
