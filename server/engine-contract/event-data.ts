import { isDeeperThan } from "../json-depth.ts";

const MAX_DEPTH = 256;

export interface EventData {
  value: unknown;
  /** The value as JSON text without control characters outside its white space. */
  json: string;
}

/**
 * What an engine sent as an event's data: JSON, else a string. JSON that nests so deep that writing it again could
 * overflow the stack counts as a string too; the text itself is kept and never written anew.
 */
export function parseEventData(text: string): EventData {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { value: text, json: JSON.stringify(text) };
  }
  // A level takes two characters at least, so the many small events are not walked through.
  if (text.length > 2 * MAX_DEPTH && isDeeperThan(value, MAX_DEPTH)) {
    return { value: text, json: JSON.stringify(text) };
  }
  return { value, json: text };
}
