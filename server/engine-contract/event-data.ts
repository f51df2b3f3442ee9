import { isDeeperThan } from "../json/json-depth.ts";
import { hasMoreValuesThan, JSON_MAX_VALUES } from "../json/json-values.ts";

const MAX_DEPTH = 256;

export interface EventData {
  value: unknown;
  /** The value as JSON text, on one line. Unlike the value it has the engine's numbers exactly. */
  json: string;
}

/**
 * Parses the data of an event that an engine sent. Text that is not JSON counts as a string. So does JSON of very many
 * values, because parsing it would hold the event loop. JSON that nests too deeply counts as a string too: a program
 * that writes the parsed value again could overflow its stack.
 */
export function parseEventData(text: string): EventData {
  // A value takes at least one character, so the check skips nearly all events.
  if (text.length > JSON_MAX_VALUES && hasMoreValuesThan(Buffer.from(text), JSON_MAX_VALUES)) {
    return { value: text, json: JSON.stringify(text) };
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { value: text, json: JSON.stringify(text) };
  }
  // A level takes at least two characters, so the check skips the many small events.
  if (text.length > 2 * MAX_DEPTH && isDeeperThan(value, MAX_DEPTH)) {
    return { value: text, json: JSON.stringify(text) };
  }
  // In JSON, a raw line break is white space. In an event stream it would end the line.
  return { value, json: text.includes("\n") ? text.replaceAll("\n", " ") : text };
}
