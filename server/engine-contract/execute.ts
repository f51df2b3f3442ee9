import type { EngineConnections } from "./connections.ts";
import type { EngineAddress } from "./engine-address.ts";
import type { CallRequest } from "./engine-call.ts";
import type { ExecuteBody } from "./execute-body.ts";
import { StreamCall, type StreamAnswer, type StreamOptions, type StreamSink } from "./stream-call.ts";

interface ExecuteOptions<Sink extends StreamSink> extends StreamOptions<Sink> {
  body: ExecuteBody;
  /** A UUID, our name for the turn. An engine that can replay the turn repeats the name then. */
  turnId: string;
}

/** Sends one `POST /execute`. Throws only what `onAccepted` throws. */
export async function sendExecute<Sink extends StreamSink>(
  connections: EngineConnections,
  { endpoint, apiKey }: EngineAddress,
  options: ExecuteOptions<Sink>,
): Promise<StreamAnswer<Sink>> {
  const request: CallRequest = {
    origin: endpoint,
    method: "POST",
    path: "/execute",
    headers: {
      "content-type": "application/json",
      accept: "text/event-stream",
      "x-engine-key": apiKey,
      "x-turn-id": options.turnId.toLowerCase(),
    },
    body: options.body.take(),
  };
  return new StreamCall(connections, apiKey, options).send(request, options.signal);
}
