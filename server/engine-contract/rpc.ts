import type { EngineConnections } from "./connections.ts";
import { type EngineExchange, exchangeWithEngine } from "./exchange.ts";
import type { HeldEngine } from "../engines/access/hold-engine.ts";
import { Deadline } from "../time/deadline.ts";
import { DomainError, type EngineErrorDetail } from "../errors.ts";
import { isDeeperThan } from "../json-depth.ts";

export interface RpcRequest {
  method: string;
  params: Readonly<Record<string, unknown>>;
  timeoutMs: number;
  /** A lost answer of a method that changes nothing is a plain failure; any other may have had its effect. */
  readOnly: boolean;
  signal?: AbortSignal | undefined;
}

const ANSWER_MAX_BYTES = 1024 * 1024;
const ANSWER_MAX_DEPTH = 128;
const MESSAGE_MAX_LENGTH = 2_000;

/**
 * Sends one call to an engine's `/rpc`, once.
 *
 * @throws ENGINE_ERROR, ENGINE_BUSY, ENGINE_UNHEALTHY, ENGINE_STOPPED, NOT_SUPPORTED_BY_ENGINE, ENGINE_TIMEOUT or
 * OUTCOME_UNKNOWN; see `findUnknownOutcome`.
 */
export async function postRpc(
  connections: EngineConnections,
  use: Pick<HeldEngine, "endpoint" | "apiKey" | "interrupted">,
  request: RpcRequest,
): Promise<unknown> {
  using deadline = new Deadline(request.timeoutMs, [use.interrupted, request.signal]);
  const exchange = await exchangeWithEngine(connections, use.endpoint, {
    method: "POST",
    path: "/rpc",
    headers: { "content-type": "application/json", accept: "application/json", "x-engine-key": use.apiKey },
    body: JSON.stringify({ method: request.method, params: request.params }),
    maxBytes: ANSWER_MAX_BYTES,
    signal: deadline.signal,
  });
  if (exchange.kind === "answered") return readAnswer(exchange, use.apiKey, request);
  throw toFailure(exchange, request, { timedOut: deadline.hasPassed, interrupted: use.interrupted });
}

type Answered = Extract<EngineExchange, { kind: "answered" }>;
type Failed = Extract<EngineExchange, { kind: "failed" }>;

function readAnswer(answer: Answered, apiKey: string, request: RpcRequest): unknown {
  const body = parseObject(answer.text);
  const engineError = body && findEngineError(answer.status, body, apiKey);
  if (engineError) throw toEngineFailure(engineError);
  if (body && answer.status >= 200 && answer.status < 300 && Object.hasOwn(body, "result")) {
    if (isDeeperThan(body["result"], ANSWER_MAX_DEPTH)) {
      throw new DomainError(
        "ENGINE_ERROR",
        `the engine's answer nests deeper than ${ANSWER_MAX_DEPTH} levels`,
      );
    }
    return body["result"];
  }
  throw toBareFailure(answer, request);
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    // Whatever is not JSON is judged by its status alone.
    return undefined;
  }
}

function findEngineError(
  status: number,
  body: Readonly<Record<string, unknown>>,
  apiKey: string,
): EngineErrorDetail | undefined {
  if (typeof body["error"] !== "string") return undefined;
  // An engine that echoes what it was sent must not make our errors carry its key.
  const clean = (text: string) => text.replaceAll(apiKey, "[hidden]").slice(0, MESSAGE_MAX_LENGTH);
  const message = typeof body["message"] === "string" ? body["message"] : body["error"];
  const detail: EngineErrorDetail = { status, code: clean(body["error"]), message: clean(message) };
  const details = body["details"];
  if (details === undefined || details === null || isDeeperThan(details, ANSWER_MAX_DEPTH)) return detail;
  return {
    ...detail,
    details: JSON.parse(JSON.stringify(details).replaceAll(apiKey, "[hidden]")) as unknown,
  };
}

/** The engine said in its own words what is wrong. */
function toEngineFailure(engineError: EngineErrorDetail): DomainError {
  const said = `${engineError.code}: ${engineError.message}`;
  switch (engineError.status) {
    case 401:
      return new DomainError("ENGINE_ERROR", "the engine refused its key", { engineError });
    case 409:
      return new DomainError("ENGINE_BUSY", `the engine is busy: ${said}`, {
        engineError,
        retryAfterMs: 1_000,
      });
    case 503:
      return new DomainError("ENGINE_UNHEALTHY", `the engine is starting or draining: ${said}`, {
        engineError,
        retryAfterMs: 1_000,
      });
    default:
      return new DomainError("ENGINE_ERROR", `the engine answered ${said}`, { engineError });
  }
}

/** A status without the contract's error envelope. */
function toBareFailure(answer: Answered, { readOnly }: Pick<RpcRequest, "readOnly">): DomainError {
  switch (answer.status) {
    case 401:
      return new DomainError("ENGINE_ERROR", "the engine refused its key");
    case 404:
    case 405:
      return new DomainError("NOT_SUPPORTED_BY_ENGINE", `the engine has no /rpc (status ${answer.status})`);
    case 409:
      return new DomainError("ENGINE_BUSY", "the engine is busy", { retryAfterMs: 1_000 });
    case 503:
      return new DomainError("ENGINE_UNHEALTHY", "the engine is starting or draining", {
        retryAfterMs: 1_000,
      });
    default: {
      const kind = (/^[\w.+/-]{1,60}/.exec(answer.contentType) ?? ["no content type"])[0];
      const what = `status ${answer.status}, ${kind}, ${Buffer.byteLength(answer.text)} bytes`;
      const cause = readOnly
        ? undefined
        : new DomainError("OUTCOME_UNKNOWN", "the engine's answer says nothing");
      return new DomainError("ENGINE_ERROR", `the engine's answer is not what the contract says (${what})`, {
        cause,
      });
    }
  }
}

function toFailure(
  exchange: Failed,
  request: RpcRequest,
  ended: { timedOut: boolean; interrupted: AbortSignal },
): DomainError {
  const mayHaveHappened = exchange.stage !== "connecting" && !request.readOnly;
  const effect = mayHaveHappened ? "; whether the call had its effect is unknown" : "";
  const cause = mayHaveHappened
    ? new DomainError("OUTCOME_UNKNOWN", `the answer was lost${effect}`)
    : undefined;
  if (ended.timedOut) {
    const message = `the engine did not answer within ${request.timeoutMs} ms${effect}`;
    return new DomainError("ENGINE_TIMEOUT", message, { cause });
  }
  if (ended.interrupted.aborted) return toInterruption(ended.interrupted, mayHaveHappened);
  if (exchange.stage === "answering") {
    const message = `the engine's answer cannot be used: ${exchange.why}${effect}`;
    return new DomainError("ENGINE_ERROR", message, { cause });
  }
  return (
    cause ??
    new DomainError("ENGINE_UNHEALTHY", `the engine cannot be reached: ${exchange.why}`, {
      retryAfterMs: 1_000,
    })
  );
}

function toInterruption(interrupted: AbortSignal, mayHaveHappened: boolean): DomainError {
  const verb = interrupted.reason === "ENGINE_STOPPED" ? "stopped" : "restarted";
  if (mayHaveHappened) {
    return new DomainError("OUTCOME_UNKNOWN", `the engine was ${verb} during the call`);
  }
  return verb === "stopped"
    ? new DomainError("ENGINE_STOPPED", "the engine was stopped during the call")
    : new DomainError("ENGINE_UNHEALTHY", "the engine was restarted during the call", {
        retryAfterMs: 1_000,
      });
}
