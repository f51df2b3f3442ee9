import type { EngineContext } from "./engine-context.ts";
import { EngineError, invalidRequest } from "./engine-error.ts";
import { getGatewayConfig, reloadGatewayConfig, setGatewayConfig } from "./gateway-config.ts";
import { isJsonObject, isNestedDeeperThan, type JsonObject } from "./json-object.ts";
import { findThread, listMessages, listThreads, type Thread } from "./threads.ts";
import { sumUsage } from "./turn-records.ts";
import { isIntegerIn, optional, parseTaskId } from "./turn-request.ts";

const MAX_CONFIG_DEPTH = 100;

type RpcContext = Pick<EngineContext, "brain" | "configFile">;
type Operation = (ctx: RpcContext, params: JsonObject) => unknown;

const OPERATIONS: ReadonlyMap<string, Operation> = new Map<string, Operation>([
  ["set_config", setConfig],
  ["get_config", (ctx) => getGatewayConfig(ctx.brain)],
  ["reload", (ctx) => reloadGatewayConfig(ctx.brain, ctx.configFile)],
  ["quota_state", quotaState],
  ["cache_state", cacheState],
  ["memory.list_threads", listThreadSummaries],
  ["memory.get_thread", getThread],
]);

/** Takes the body of `POST /rpc` and returns its `result`. */
export function callOperation(ctx: RpcContext, body: JsonObject): unknown {
  const { method, params = {} } = body;
  if (typeof method !== "string") throw invalidRequest("method must be a string");
  if (!isJsonObject(params)) throw invalidRequest("params must be an object");
  const operation = OPERATIONS.get(method);
  if (!operation) throw new EngineError(400, "UNKNOWN_METHOD", "this engine has no such method");
  return operation(ctx, params);
}

function setConfig(ctx: RpcContext, params: JsonObject): unknown {
  const config = params["config"];
  if (!isJsonObject(config)) throw invalidRequest("params.config must be an object");
  if (isNestedDeeperThan(MAX_CONFIG_DEPTH, config)) {
    throw invalidRequest(`params.config is nested deeper than ${MAX_CONFIG_DEPTH}`);
  }
  return setGatewayConfig(ctx.brain, config);
}

/** The reference engine has no limit, so its quota state is only its use so far. */
function quotaState(ctx: RpcContext): unknown {
  const { turns, input, output } = sumUsage(ctx.brain);
  return { turns, input_tokens: input, output_tokens: output, limit: null };
}

/** The input that an earlier turn of the same thread already contained: a prompt cache would have saved it. */
function cacheState(ctx: RpcContext): unknown {
  const { input, cachedInput } = sumUsage(ctx.brain);
  return {
    input_tokens: input,
    cached_input_tokens: cachedInput,
    hit_ratio: input === 0 ? null : cachedInput / input,
  };
}

function listThreadSummaries(ctx: RpcContext, params: JsonObject): unknown {
  const limit = optional(params["limit"], "params.limit", isIntegerIn(1, 1_000)) ?? 100;
  return { threads: listThreads(ctx.brain, limit).map(toSummary) };
}

function getThread(ctx: RpcContext, params: JsonObject): unknown {
  const thread = findThread(ctx.brain, parseTaskId(params["task_id"]));
  if (!thread) throw new EngineError(422, "THREAD_NOT_FOUND", "the brain has no thread with this task_id");
  const messages = listMessages(ctx.brain, thread.taskId).map((message) => ({
    message_id: message.messageId,
    exchange: message.exchange,
    role: message.role,
    text: message.content.text,
    media: message.content.media,
    created_at: message.createdAt,
  }));
  return { ...toSummary(thread), messages };
}

function toSummary(thread: Thread): JsonObject {
  return {
    task_id: thread.taskId,
    working_memory: thread.workingMemory,
    created_at: thread.createdAt,
    updated_at: thread.updatedAt,
  };
}
