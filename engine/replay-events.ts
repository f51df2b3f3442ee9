import type { ServerResponse } from "node:http";
import type { EngineContext } from "./engine-context.ts";
import { invalidRequest } from "./engine-error.ts";
import { findLastEventAt, listEvents } from "./event-log.ts";
import { isJsonObject } from "./json-object.ts";
import { SseWriter } from "./sse-writer.ts";

const PAGE = 500;

/**
 * Sends the events of all turns after an instant up to now, then ends. Each one's data also says where it belongs
 * (`task_id`, `turn_id`) and where to go on from (`at`).
 */
export async function replayEvents(
  ctx: Pick<EngineContext, "brain" | "isDraining">,
  query: URLSearchParams,
  res: ServerResponse,
): Promise<void> {
  const afterText = query.get("after") ?? "";
  if (!/^\d{1,15}$/.test(afterText)) throw invalidRequest("after must be an instant in milliseconds");
  let after = Number(afterText);
  const upTo = findLastEventAt(ctx.brain);
  const reader = new SseWriter(res);
  // Page by page, since the brain is written between two awaits.
  while (after < upTo && !reader.isClosed && !ctx.isDraining()) {
    const events = listEvents(ctx.brain, { after, upTo, limit: PAGE });
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
