import type { ServerResponse } from "node:http";
import type { EngineContext } from "./engine-context.ts";
import { EngineError, invalidRequest } from "./engine-error.ts";
import { findTurnOfEvent, listTurnEvents } from "./event-log.ts";
import { isJsonObject } from "./json-object.ts";
import { SseWriter } from "./sse-writer.ts";
import { findNewestTurn, findTurn, type NamedTurn } from "./turn-records.ts";

type ReplayContext = Pick<EngineContext, "brain" | "feeds">;

export interface ReplayRequest {
  readonly taskId: string;
  /** undefined: the newest turn of the task from its first event on. */
  readonly lastEventId: string | undefined;
}

const PAGE_SIZE = 500;

/**
 * Sends the events of one turn after an event, and goes on with the live rest as `/execute` would. An event names its
 * turn: after an event of an older turn come the events of that turn and no others.
 *
 * Throws 404 if the task has had no turn, and 410 if the events after that event may no longer be kept.
 */
export async function replayTurn(
  ctx: ReplayContext,
  request: ReplayRequest,
  res: ServerResponse,
): Promise<void> {
  const after = parseEventId(request.lastEventId);
  const turn = findReplayedTurn(ctx, request.taskId, after);
  if (turn.callerTurnId !== null) res.setHeader("x-turn-id", turn.callerTurnId);
  const replay = sendTurn(ctx, { turnId: turn.turnId, after }, new SseWriter(res));
  ctx.feeds.track(replay);
  await replay;
}

async function sendTurn(
  ctx: ReplayContext,
  from: { readonly turnId: string; readonly after: number },
  reader: SseWriter,
): Promise<void> {
  const { turnId } = from;
  let { after } = from;
  while (!reader.isClosed) {
    // Page by page: turns write to the brain during each await, so no statement may stay open across one.
    const events = listTurnEvents(ctx.brain, { turnId, after, limit: PAGE_SIZE });
    for (const { at, type, data } of events) {
      await reader.send(type, data, at);
      after = at;
    }
    if (events.length === 0 && !(await ctx.feeds.next(turnId))) break;
  }
  await reader.end();
}

function parseEventId(text: string | undefined): number {
  if (text === undefined) return 0;
  if (!/^\d{1,15}$/.test(text))
    throw invalidRequest("Last-Event-ID must be the id of an event of this engine");
  return Number(text);
}

function findReplayedTurn({ brain }: ReplayContext, taskId: string, after: number): NamedTurn {
  const newest = findNewestTurn(brain, taskId);
  if (!newest) throw new EngineError(404, "TASK_NOT_FOUND", "this engine has had no turn of this task");
  if (after === 0) {
    if (!hasFirstEvent(brain, newest.turnId)) throw eventsForgotten();
    return newest;
  }
  const turnId = findTurnOfEvent(brain, { taskId, at: after });
  const turn = turnId === undefined ? undefined : findTurn(brain, turnId);
  if (!turn) throw eventsForgotten();
  return turn;
}

/** Events are forgotten oldest first, so a turn that has its first event has them all. */
function hasFirstEvent(brain: ReplayContext["brain"], turnId: string): boolean {
  const [first] = listTurnEvents(brain, { turnId, after: 0, limit: 1 });
  const data: unknown = first?.type === "thread_lifecycle" ? JSON.parse(first.data) : undefined;
  return isJsonObject(data) && data["phase"] === "started";
}

function eventsForgotten(): EngineError {
  return new EngineError(410, "EVENTS_FORGOTTEN", "the events after this id are not kept any more");
}
