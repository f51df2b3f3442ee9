import type { AppRouter } from "../server/api/routers/router.ts";

/** The events of the engine contract. Later versions of an engine may add fields. */
export interface EventData {
  thread_lifecycle: {
    phase: "started" | "completed" | "errored";
    task_id: string;
    turn_id: string;
    timestamp: string | number;
  };
  error: { error: string; message: string; details?: unknown };
  text_delta: { text: string };
  thinking_delta: { text: string };
  content_block_start: { block_index: number; block_type: BlockType };
  content_block_stop: { block_index: number; block_type: BlockType };
  tool_call: { tool: string; tool_call_id: string; input: unknown };
  tool_result: { tool_call_id: string; output: unknown; error?: unknown };
  hitl_request: { request_id: string; task_id: string; kind: string; question: string };
  hitl_resolved: unknown;
  working_memory_update: unknown;
  compaction_event: unknown;
  usage: unknown;
  heartbeat: unknown;
}

type BlockType = "text" | "thinking" | "tool_use";

interface EventOf<Type, Data> {
  /** The sequence number: 1, 2, 3, … */
  seq: number;
  /** When the event arrived from the engine, as an ISO instant. */
  at: string;
  type: Type;
  data: Data;
}

declare const other: unique symbol;
/**
 * A type that the contract does not know. At run time it is a string: compare `String(event.type) === "my_event"`.
 * The compiler must not see a string here, or `event.type === "text_delta"` would not narrow `event.data`.
 */
export interface OtherEventType {
  readonly [other]: true;
  toString(): string;
}

export type KnownTurnEvent = { [Type in keyof EventData]: EventOf<Type, EventData[Type]> }[keyof EventData];
export type OtherTurnEvent = EventOf<OtherEventType, unknown>;
/** `type` determines the type of `data`. */
export type TurnEvent = KnownTurnEvent | OtherTurnEvent;

type Yielded<Stream> = Stream extends AsyncIterable<infer Message> ? Message : never;
type Tracked<Message> = Message extends { id: string; data: infer Data } ? Data : never;

/** One message of a turn's stream: a gap comes before the events, the end after them. */
export type TurnBatch = Tracked<Yielded<AppRouter["turns"]["events"]["_def"]["$types"]["output"]>>;
export type TurnEnd = NonNullable<TurnBatch["end"]>;
export type TurnGap = NonNullable<TurnBatch["gap"]>;
