import { EventSource } from "eventsource";

/** The types that the reference engine sends, under the names that a browser gets, and ours. */
export const BROWSER_TYPES = [
  "thread_lifecycle",
  "heartbeat",
  "thinking_delta",
  "content_block_start",
  "content_block_stop",
  "text_delta",
  "tool_call",
  "tool_result",
  "working_memory_update",
  "compaction_event",
  "usage",
  "engine.error",
  "enginehouse.gap",
  "enginehouse.end",
  "enginehouse.error",
];

export interface RecordedSource extends Disposable {
  /** The type and the sequence number of each event so far. */
  readonly events: readonly { type: string; seq: number; data: string }[];
  /** How often the source has connected. */
  readonly connections: number;
  /** Resolves when the source gives up for good, with the HTTP status for which it does. */
  readonly closed: Promise<number | undefined>;
}

/** Follows a turn as a page would that never closes its EventSource. */
export function openRecordedSource(url: string): RecordedSource {
  const events: { type: string; seq: number; data: string }[] = [];
  const closed = Promise.withResolvers<number | undefined>();
  let connections = 0;
  const source = new EventSource(url);
  source.addEventListener("open", () => {
    connections += 1;
  });
  for (const type of BROWSER_TYPES) {
    source.addEventListener(type, ({ lastEventId, data }) => {
      events.push({ type, seq: Number(lastEventId), data: String(data) });
    });
  }
  source.addEventListener("error", ({ code }) => {
    if (source.readyState === EventSource.CLOSED) closed.resolve(code);
  });
  return {
    events,
    get connections() {
      return connections;
    },
    closed: closed.promise,
    [Symbol.dispose]: () => source.close(),
  };
}
