import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import type { EngineContext } from "./engine-context.ts";
import { executeTurn } from "./execute-turn.ts";
import { invalidRequest } from "./engine-error.ts";
import { checkHealth } from "./health.ts";
import { sendJson } from "./json-body.ts";
import type { JsonObject } from "./json-object.ts";
import { replayEvents } from "./replay-events.ts";
import { replayTurn } from "./replay-turn.ts";
import { callOperation } from "./rpc-operations.ts";
import { isString, optional, parseTaskId } from "./turn-request.ts";

export interface Call {
  /** Empty for GET. */
  readonly body: JsonObject;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  readonly res: ServerResponse;
}

export interface Route {
  readonly method: "GET" | "POST";
  /** Needs no key and works while the engine drains. Only /health is open. */
  readonly isOpen?: true;
  readonly handle: (ctx: EngineContext, call: Call) => void | Promise<void>;
}

export const ROUTES: ReadonlyMap<string, Route> = new Map<string, Route>([
  ["/health", { method: "GET", isOpen: true, handle: answerHealth }],
  ["/execute", { method: "POST", handle: execute }],
  ["/execute/cancel", { method: "POST", handle: cancelTurn }],
  ["/execute/replay", { method: "GET", handle: replay }],
  [
    "/rpc",
    {
      method: "POST",
      handle: (ctx, { body, res }) => sendJson(res, 200, { result: callOperation(ctx, body) }),
    },
  ],
  [
    "/hitl/pending",
    { method: "GET", handle: (ctx, { res }) => sendJson(res, 200, { pending: ctx.questions.listPending() }) },
  ],
  ["/hitl/respond", { method: "POST", handle: respondToQuestion }],
]);

function execute(ctx: EngineContext, { body, headers, res }: Call): void {
  executeTurn(ctx, { body, callerTurnId: findHeader(headers, "x-turn-id") ?? null }, res);
}

async function replay(ctx: EngineContext, { query, headers, res }: Call): Promise<void> {
  const taskId = query.get("task_id");
  if (taskId === null) return await replayEvents(ctx, query, res);
  const lastEventId = findHeader(headers, "last-event-id");
  await replayTurn(ctx, { taskId: parseTaskId(taskId), lastEventId }, res);
}

/** An empty header counts as absent. */
function findHeader(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" && value !== "" ? value : undefined;
}

async function answerHealth(ctx: EngineContext, { res }: Call): Promise<void> {
  const health = await checkHealth(ctx);
  sendJson(res, health.status === "ok" ? 200 : 503, health);
}

/** Answers when the task is free. */
async function cancelTurn(ctx: EngineContext, { body, res }: Call): Promise<void> {
  sendJson(res, 200, { cancelled: await ctx.turns.cancel(parseTaskId(body["task_id"])) });
}

function respondToQuestion(ctx: EngineContext, { body, res }: Call): void {
  const taskId = parseTaskId(body["task_id"]);
  const answer = body["answer"];
  if (typeof answer !== "string") throw invalidRequest("answer must be a string");
  const feedback = optional(body["feedback"], "feedback", isString);
  const contentBlocks = optional(body["content_blocks"], "content_blocks", Array.isArray)?.length ?? 0;
  const given = { answer, contentBlocks, ...(feedback !== undefined && { feedback }) };
  const requestId = ctx.questions.respond(taskId, given, body["request_id"]);
  sendJson(res, 200, { status: "resolved", request_id: requestId });
}
