import { toEventStream } from "@enginehouse/client";
import { acme, userId } from "../../acme.ts";

export async function GET(request: Request): Promise<Response> {
  const { searchParams } = new URL(request.url);
  const { turn: turnId = "", thread = "", message = "" } = Object.fromEntries(searchParams);
  const turn = acme.execute({ turnId, userId, request: { taskId: thread, message } });
  return toEventStream(turn, { lastEventId: request.headers.get("last-event-id"), signal: request.signal });
}
