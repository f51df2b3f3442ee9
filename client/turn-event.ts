import type { AppRouter } from "../server/api/routers/router.ts";

/** The events of the engine contract, as engines send them. Engines of a later version may add fields. */
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
  /** From 1, without holes. */
  seq: number;
  /** ISO instant at which it came from the engine. */
  at: string;
  type: Type;
  data: Data;
}

declare const other: unique symbol;
/**
 * At run time a string like any other, for instance `String(event.type) === "my_event"`. To the compiler it is none
 * of the known types: only so does `event.type === "text_delta"` tell the shape of `event.data`.
 */
export interface OtherEventType {
  readonly [other]: true;
  toString(): string;
}

export type KnownTurnEvent = { [Type in keyof EventData]: EventOf<Type, EventData[Type]> }[keyof EventData];
export type OtherTurnEvent = EventOf<OtherEventType, unknown>;
/** `type` tells the shape of `data`. */
export type TurnEvent = KnownTurnEvent | OtherTurnEvent;

type Yielded<Stream> = Stream extends AsyncIterable<infer Item> ? Item : never;
type Tracked<Item> = Item extends { id: string; data: infer Data } ? Data : never;

/** What one message of a turn's stream holds: first what is missing, then events, then the end. */
export type TurnItem = Tracked<Yielded<AppRouter["turns"]["events"]["_def"]["$types"]["output"]>>;
export type TurnEnd = NonNullable<TurnItem["end"]>;
export type TurnGap = NonNullable<TurnItem["gap"]>;
