/** The chunks that the bench engine sends on one stream, between its first and last event. */
export interface Load {
  chunks: number;
  eventsPerChunk: number;
  intervalMs: number;
  /** True: the engine sends only the first event until `POST /release`. */
  isHeld: boolean;
  /** The engine writes the time into each event when it sends the event. */
  isTimed?: boolean;
}

/** The clock of the machine in milliseconds, which all its processes share. */
export function readSharedClock(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Before the time in a timed event, which is in microseconds. */
export const TIME_MARK = "sent at ";

/** Occurs exactly once in each event of a load, in every format on the way to the reader. */
export const EVENT_MARK = '"text":"';

export function isLoad(value: unknown): value is Load {
  return typeof value === "object" && value !== null && "eventsPerChunk" in value && "isHeld" in value;
}

/** The body of `/execute` as an engine gets it. */
export function toExecuteBody(load: Load): string {
  return JSON.stringify({ message: "go", task_id: crypto.randomUUID(), load });
}
