export type BlockType = "text" | "thinking" | "tool_use";

interface EventData {
  readonly thread_lifecycle: {
    readonly phase: "started" | "completed" | "errored";
    readonly task_id: string;
    readonly turn_id: string;
    readonly timestamp: string;
    /** The user's message (started) or the answer (completed), for `edit_message_id` and `retry_message_id`. */
    readonly message_id?: string;
    /** Why the turn ended (errored). */
    readonly error?: string;
    readonly message?: string;
  };
  readonly error: { readonly error: string; readonly message: string; readonly details?: unknown };
  readonly text_delta: { readonly text: string };
  readonly thinking_delta: { readonly text: string };
  readonly content_block_start: { readonly block_index: number; readonly block_type: BlockType };
  readonly content_block_stop: { readonly block_index: number; readonly block_type: BlockType };
  readonly tool_call: { readonly tool: string; readonly tool_call_id: string; readonly input: unknown };
  readonly tool_result: { readonly tool_call_id: string; readonly output: unknown; readonly error?: string };
  readonly hitl_request: {
    readonly request_id: string;
    readonly task_id: string;
    readonly kind: string;
    readonly question: string;
  };
  readonly hitl_resolved: {
    readonly request_id: string;
    readonly task_id: string;
    readonly answer: string;
    readonly feedback?: string;
  };
  readonly working_memory_update: { readonly task_id: string; readonly memory: unknown };
  readonly compaction_event: {
    readonly task_id: string;
    readonly messages_removed: number;
    readonly messages_kept: number;
  };
  readonly usage: {
    readonly input_tokens: number;
    readonly cached_input_tokens: number;
    readonly output_tokens: number;
  };
  readonly heartbeat: { readonly timestamp: string };
}

/** An event of the stream: `event: <type>`, `data: <json of data>`. */
export type EngineEvent = {
  [Type in keyof EventData]: { readonly type: Type; readonly data: EventData[Type] };
}[keyof EventData];
