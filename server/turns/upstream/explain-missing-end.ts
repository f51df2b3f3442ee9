/** What a stream had when it closed without its last event. */
export interface StreamSeen {
  events: number;
  lastType: string;
  /** About the last `thread_lifecycle` that was not understood; undefined if all were. */
  misread: string | undefined;
  /** The end of the text. */
  tail: string;
}

const WANTED = 'it must end with an event thread_lifecycle whose data has "phase": "completed" or "errored"';

/** What is missing at the end of a stream, for the author of the engine: what came, and what the contract says. */
export function explainMissingEnd(seen: StreamSeen): string {
  return `the engine closed the stream without its last event: ${describe(seen)}; ${WANTED}`;
}

function describe({ events, lastType, misread, tail }: StreamSeen): string {
  if (misread !== undefined) return misread;
  if (tail === "") return "the stream was empty";
  // The parser drops an event without its empty line, so a whole last event may look missing.
  const isCut = !/(?:\n|\r\n?)(?:\n|\r\n?)$/.test(tail);
  const cut = isCut
    ? ", and the text after the last empty line is no whole event: an empty line ends each event"
    : "";
  if (events === 0) return `no event came (each is "event: <type>", "data: <json>" and an empty line)${cut}`;
  const untyped = lastType === "message" ? ' (an event without an "event:" line is a message)' : "";
  return `the last of ${events} events was ${lastType.slice(0, 100)}${untyped}${cut}`;
}

/** For data of `thread_lifecycle` that says neither started, completed nor errored. */
export function describeMisread(data: unknown, show: (text: string) => string): string {
  if (typeof data === "string") return `the data of a thread_lifecycle is no JSON object: ${show(data)}`;
  return `a thread_lifecycle has an unknown phase: ${show(JSON.stringify(data))}`;
}
