/** What the bench engine sends on one stream, between the first event and the last. */
export interface Load {
  chunks: number;
  eventsPerChunk: number;
  intervalMs: number;
  /** Nothing but the first event is sent until the engine is told to release its streams. */
  isHeld: boolean;
}

/** Stands once in each event of a load, whatever it is wrapped in on its way. */
export const EVENT_MARK = '"text":"';

export function isLoad(value: unknown): value is Load {
  return typeof value === "object" && value !== null && "eventsPerChunk" in value && "isHeld" in value;
}

/** The body of `/execute` as an engine gets it. */
export function toExecuteBody(load: Load): string {
  return JSON.stringify({ message: "go", task_id: crypto.randomUUID(), load });
}
