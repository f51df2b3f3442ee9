import { DomainError } from "../errors.ts";
import { isDeeperThan } from "../json/json-depth.ts";
import { findMember, toJsonText } from "../json/json-text.ts";
import { Deadline } from "../time/deadline.ts";
import type { EngineConnections } from "./connections.ts";
import type { EngineAddress } from "./engine-address.ts";
import { exchangeWithEngine, type EngineAnswer } from "./exchange.ts";
import { parseObject } from "./parse-object.ts";
import {
  findReportedError,
  type KnownSecrets,
  RPC_MAX_DEPTH,
  toAnswerFailure,
  toExchangeFailure,
} from "./rpc-failure.ts";

export interface RpcRequest {
  method: string;
  params: Readonly<Record<string, unknown>>;
  timeoutMs: number;
  /** True when the method changes nothing, so a lost answer is a plain failure. Otherwise the outcome is unknown. */
  readOnly: boolean;
  /** Aborts when the caller leaves. Pass it only for read-only methods: an aborted call may have had its effect. */
  signal?: AbortSignal | undefined;
}

export interface RpcTarget extends EngineAddress {
  /** Aborts when the engine stops or restarts. The signal's reason is "ENGINE_STOPPED" or "ENGINE_RESTARTED". */
  interrupted: AbortSignal;
}

/** Parsing changes numbers: callers get the text. */
export interface RpcResult {
  value: unknown;
  json: string;
}

const ANSWER_MAX_BYTES = 1024 * 1024;

/**
 * Sends one `POST /rpc`, once, and returns the engine's `result`.
 *
 * @throws ENGINE_ERROR, ENGINE_BUSY, ENGINE_UNHEALTHY, ENGINE_STOPPED, NOT_SUPPORTED_BY_ENGINE, ENGINE_TIMEOUT or
 * OUTCOME_UNKNOWN. `findUnknownOutcome` tells whether the effect of the call is unknown.
 */
export async function postRpc(
  connections: EngineConnections,
  { endpoint, apiKey, interrupted }: RpcTarget,
  request: RpcRequest,
): Promise<RpcResult> {
  using deadline = new Deadline(request.timeoutMs, [interrupted, request.signal]);
  const result = await exchangeWithEngine(connections, endpoint, {
    method: "POST",
    path: "/rpc",
    headers: { "content-type": "application/json", accept: "application/json", "x-engine-key": apiKey },
    body: `{"method":${JSON.stringify(request.method)},"params":${toJsonText(request.params)}}`,
    maxBytes: ANSWER_MAX_BYTES,
    signal: deadline.signal,
  });
  if (result.kind === "answered") {
    return readAnswer(result, { secrets: connections.secrets, apiKey }, request.readOnly);
  }
  throw toExchangeFailure(result, request, { timedOut: deadline.hasPassed, interrupted });
}

function readAnswer(answer: EngineAnswer, known: KnownSecrets, readOnly: boolean): RpcResult {
  const { status } = answer;
  const body = parseObject(answer.text);
  const engineError = body && findReportedError(status, body, known);
  if (engineError || !body || status < 200 || status > 299 || !Object.hasOwn(body, "result")) {
    const contentType = known.secrets.and(known.apiKey).hide(answer.contentType);
    throw toAnswerFailure({ ...answer, contentType }, engineError, readOnly);
  }
  const value = body["result"];
  if (!isDeeperThan(value, RPC_MAX_DEPTH))
    return { value, json: findMember(answer.text, "result") ?? "null" };
  throw new DomainError("ENGINE_ERROR", `the engine's answer nests deeper than ${RPC_MAX_DEPTH} levels`);
}
