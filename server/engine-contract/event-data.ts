import { isDeeperThan } from "../json-depth.ts";

const MAX_DEPTH = 256;

export interface EventData {
  value: unknown;
  /** The value as JSON text. Control characters appear only in its white space. */
  json: string;
}

/**
 * Parses the data of an event that an engine sent. Text that is not JSON counts as a string. JSON that nests too
 * deeply counts as a string too: serialising the parsed value again could overflow the stack.
 */
export function parseEventData(text: string): EventData {
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
  return { value, json: text };
}
