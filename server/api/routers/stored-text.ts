/** The mark of a stored reply that has the result as text. The result of an engine does not have it by chance. */
const TEXT_FORMAT = "enginehouse.text.2";

/** A result as text. It is stored like this under the idempotency key, so that a retry gets the same text. */
export interface StoredText {
  format: typeof TEXT_FORMAT;
  json: string;
}

export function toStoredText(json: string): StoredText {
  return { format: TEXT_FORMAT, json };
}

/** The text of a reply, also of one that an earlier version has stored: the result itself, or an object with `result`. */
export function readStoredText(reply: object): string {
  if ("format" in reply && reply.format === TEXT_FORMAT) return (reply as StoredText).json;
  return JSON.stringify("result" in reply ? reply.result : reply);
}
