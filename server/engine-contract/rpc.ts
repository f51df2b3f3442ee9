import { DomainError } from "../errors.ts";
import { isDeeperThan } from "../json/json-depth.ts";
import { findMember, toJsonText } from "../json/json-text.ts";
import type { EngineConnections } from "./connections.ts";
import { type CallTarget, type JsonCall, postJson } from "./post-json.ts";

export interface RpcRequest extends Pick<JsonCall, "timeoutMs" | "readOnly" | "signal"> {
  method: string;
  params: Readonly<Record<string, unknown>>;
}

/** Parsing changes numbers: callers get the text. */
export interface RpcResult {
  value: unknown;
  json: string;
}

const RESULT_MAX_DEPTH = 128;

/** Sends one `POST /rpc`, once, and returns the engine's `result`. Throws what `postJson` throws. */
export async function postRpc(
  connections: EngineConnections,
  target: CallTarget,
  { method, params, ...rest }: RpcRequest,
): Promise<RpcResult> {
  const body = `{"method":${JSON.stringify(method)},"params":${toJsonText(params)}}`;
  const answer = await postJson(connections, target, { ...rest, path: "/rpc", member: "result", body });
  const value = answer.value["result"];
  if (!isDeeperThan(value, RESULT_MAX_DEPTH))
    return { value, json: findMember(answer.text, "result") ?? "null" };
  throw new DomainError("ENGINE_ERROR", `the engine's answer nests deeper than ${RESULT_MAX_DEPTH} levels`);
}
