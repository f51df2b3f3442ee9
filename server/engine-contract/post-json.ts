import { Deadline } from "../time/deadline.ts";
import { type CallKind, findReportedError, toAnswerFailure, toExchangeFailure } from "./call-failure.ts";
import type { EngineConnections } from "./connections.ts";
import type { EngineAddress } from "./engine-address.ts";
import { exchangeWithEngine, type EngineAnswer } from "./exchange.ts";
import { parseObject } from "./parse-object.ts";

export interface CallTarget extends EngineAddress {
  /** Aborts when the engine stops or restarts. The signal's reason is "ENGINE_STOPPED" or "ENGINE_RESTARTED". */
  interrupted: AbortSignal;
}

export interface JsonCall extends CallKind {
  /** JSON text. */
  body: string;
  timeoutMs: number;
  /** Aborts when the caller leaves. Pass it only for read-only calls: an aborted call may have had its effect. */
  signal?: AbortSignal | undefined;
}

export interface JsonAnswer {
  value: Readonly<Record<string, unknown>>;
  /** Parsing changes numbers: this is the text as it was sent. */
  text: string;
}

const ANSWER_MAX_BYTES = 1024 * 1024;

/**
 * Sends one POST with a JSON body, once, and returns the engine's JSON object.
 *
 * @throws ENGINE_ERROR, ENGINE_BUSY, ENGINE_UNHEALTHY, ENGINE_STOPPED, NOT_SUPPORTED_BY_ENGINE, ENGINE_TIMEOUT or
 * OUTCOME_UNKNOWN. `findUnknownOutcome` tells whether the effect of the call is unknown.
 */
export async function postJson(
  connections: EngineConnections,
  { endpoint, apiKey, interrupted }: CallTarget,
  call: JsonCall,
): Promise<JsonAnswer> {
  using deadline = new Deadline(call.timeoutMs, [interrupted, call.signal]);
  const result = await exchangeWithEngine(connections, endpoint, {
    method: "POST",
    path: call.path,
    headers: { "content-type": "application/json", accept: "application/json", "x-engine-key": apiKey },
    body: call.body,
    maxBytes: ANSWER_MAX_BYTES,
    signal: deadline.signal,
  });
  if (result.kind === "failed") {
    throw toExchangeFailure(result, call, { timedOut: deadline.hasPassed, interrupted });
  }
  const value = parseAnswer(result, call);
  if (value && isSuccess(result.status, value, call)) return { value, text: result.text };
  const secrets = connections.secrets.and(apiKey);
  const engineError = value && findReportedError(result.status, value, secrets);
  throw toAnswerFailure({ ...result, contentType: secrets.hide(result.contentType) }, engineError, call);
}

function parseAnswer({ text }: EngineAnswer, { isOptional }: CallKind): JsonAnswer["value"] | undefined {
  // The contract says nothing about the answer to some optional calls, so it may be empty.
  return isOptional === true && text.trim() === "" ? {} : parseObject(text);
}

function isSuccess(status: number, value: JsonAnswer["value"], { member }: CallKind): boolean {
  if (status < 200 || status > 299 || typeof value["error"] === "string") return false;
  return member === undefined || Object.hasOwn(value, member);
}
