import type { ServerResponse } from "node:http";
import type { EngineContext } from "./engine-context.ts";
import { invalidRequest } from "./engine-error.ts";
import { findLastEventAt, listEvents } from "./event-log.ts";
import { isJsonObject } from "./json-object.ts";
import { SseWriter } from "./sse-writer.ts";

const PAGE_SIZE = 500;

/**
 * Sends the events of all turns after an instant up to now, then ends. The data of each event also has `task_id`,
 * `turn_id` and `at`, with which the next replay can continue.
 */
export async function replayEvents(
  ctx: Pick<EngineContext, "brain" | "isDraining">,
  query: URLSearchParams,
  res: ServerResponse,
): Promise<void> {
  const afterText = query.get("after") ?? "";
  if (!/^\d{1,15}$/.test(afterText)) throw invalidRequest("after must be a time in milliseconds");
  let after = Number(afterText);
  const upTo = findLastEventAt(ctx.brain);
  const reader = new SseWriter(res);
  // Page by page: turns write to the brain during each await, so no statement may stay open across one.
  while (after < upTo && !reader.isClosed && !ctx.isDraining()) {
    const events = listEvents(ctx.brain, { after, upTo, limit: PAGE_SIZE });
    for (const { at, taskId, turnId, type, data } of events) {
      const parsed: unknown = JSON.parse(data);
      const fields = isJsonObject(parsed) ? parsed : {};
      await reader.send(type, JSON.stringify({ ...fields, task_id: taskId, turn_id: turnId, at }));
      after = at;
    }
    if (events.length === 0) break;
  }
  await reader.end();
}
