/** A decimal number without leading zeros. As text, because a number of JavaScript would round a long one. */
const EVENT_ID = /^(?:0|[1-9]\d{0,39})$/;

/** Whether the text is an id that an engine may give to an event. */
export function isEventId(text: string | undefined): text is string {
  return text !== undefined && EVENT_ID.test(text);
}

/** Whether `id` is the id of an event that comes after the event `earlier`. "" is earlier than every id. */
export function isLaterEventId(id: string | undefined, earlier: string): id is string {
  if (!isEventId(id)) return false;
  return id.length === earlier.length ? id > earlier : id.length > earlier.length;
}
