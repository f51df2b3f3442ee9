import type { EngineConnections } from "./connections.ts";
import type { EngineAddress } from "./engine-address.ts";
import type { AnswerHeaders, CallRequest } from "./engine-call.ts";
import {
  StreamCall,
  type StreamAnswer,
  type StreamOptions,
  type StreamSink,
  type StreamSource,
} from "./stream-call.ts";

export interface ReplayOptions<Sink extends StreamSink> extends Omit<StreamOptions<Sink>, "onAccepted"> {
  taskId: string;
  /** A UUID, our name for the turn. */
  turnId: string;
  /** The id of the last event that is known; undefined: the newest turn of the task from its first event on. */
  lastEventId: string | undefined;
  onAccepted: (source: StreamSource) => Sink;
}

/**
 * Sends one `GET /execute/replay` for the events of a turn after an event, and the live rest. A stream that is not of
 * this turn is refused. An event id names its turn, so only a replay from the beginning needs the turn's name.
 *
 * Throws only what `onAccepted` throws.
 */
export async function sendReplay<Sink extends StreamSink>(
  connections: EngineConnections,
  { endpoint, apiKey }: EngineAddress,
  { taskId, turnId, lastEventId, onAccepted, ...options }: ReplayOptions<Sink>,
): Promise<StreamAnswer<Sink>> {
  const request: CallRequest = {
    origin: endpoint,
    method: "GET",
    path: `/execute/replay?task_id=${encodeURIComponent(taskId)}`,
    headers: {
      accept: "text/event-stream",
      "x-engine-key": apiKey,
      ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
    },
  };
  const isOurs = (headers: AnswerHeaders) => {
    const name = headers["x-turn-id"];
    return name === undefined ? lastEventId !== undefined : name === turnId.toLowerCase();
  };
  const call = new StreamCall<Sink>(connections, apiKey, {
    ...options,
    onAccepted: (source, headers) => (isOurs(headers) ? onAccepted(source) : NOT_OURS),
  });
  return call.send(request, options.signal);
}

const NOT_OURS = "the engine's replay does not say that it is of this turn";
