/** The chunks that the bench engine sends on one stream, between its first and last event. */
export interface Load {
  chunks: number;
  eventsPerChunk: number;
  intervalMs: number;
  /** True: the engine sends only the first event until `POST /release`. */
  isHeld: boolean;
}

/** Occurs exactly once in each event of a load, in every format on the way to the reader. */
export const EVENT_MARK = '"text":"';

export function isLoad(value: unknown): value is Load {
  return typeof value === "object" && value !== null && "eventsPerChunk" in value && "isHeld" in value;
}

/** The body of `/execute` as an engine gets it. */
export function toExecuteBody(load: Load): string {
  return JSON.stringify({ message: "go", task_id: crypto.randomUUID(), load });
}
