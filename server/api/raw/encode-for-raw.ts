import type { TurnEnd } from "../../turns/model/turn-end.ts";
import type { TurnBatch, TurnGap } from "../../turns/read/turn-batch.ts";
import { QUIET_LINE } from "./raw-format.ts";

/** Our own event types begin with this prefix. */
const OUR_PREFIX = "enginehouse.";
/** What a reader may take for our prefix: it may trim the type, fold its case, or not see its first characters. */
const LIKE_OURS = /^[^a-z]*enginehouse\./i;
const CONTROL = /\p{Cc}/gu;
/** Finds the rare types that need more than to be copied, in one pass. The backslash is that of an escaped character. */
const ODD_TYPE = /^[^a-z]*enginehouse\.|[\\\x7f-\x9f]/i;
/** This prefix comes before an engine's type that begins like ours. */
const ENGINE_PREFIX = "engine.";

// The marks in the text of an event, which is {"seq":1,"at":"…","type":"…","data":…}. A quote inside of a JSON string has
// a backslash before it. So none of these marks can be inside of the type.
const SEQ_AT = '{"seq":'.length;
const TYPE_MARK = '","type":"';
const DATA_MARK = '","data":';

/**
 * Encodes a batch for `streamTurn` as plain server-sent events. The text is cut out of the kept text of each event, so
 * the data stay as their engine has sent them. An empty text says that the reader has the turn's end already.
 */
export function encodeForRaw(_turnId: string, afterSeq: number, batch: TurnBatch): string {
  const { events, gap, end } = batch;
  if (events.length === 0 && gap === undefined && end === undefined) return QUIET_LINE;
  let text = gap === undefined ? "" : toGapText(gap);
  for (const event of events) text += toEventText(event);
  return end === undefined || isKnown(end, afterSeq) ? text : text + toEndText(end);
}

function toEventText(event: string): string {
  const seqEnd = event.indexOf(",", SEQ_AT);
  const typeAt = event.indexOf(TYPE_MARK, seqEnd) + TYPE_MARK.length;
  const typeEnd = event.indexOf(DATA_MARK, typeAt);
  const type = toType(event.slice(typeAt, typeEnd));
  const data = event.slice(typeEnd + DATA_MARK.length, -1);
  return `id: ${event.slice(SEQ_AT, seqEnd)}\nevent: ${type}\ndata: ${data}\n\n`;
}

/** An engine must not be able to send an event that looks like one of ours. */
function toType(escaped: string): string {
  if (!ODD_TYPE.test(escaped)) return escaped;
  const type = (JSON.parse(`"${escaped}"`) as string).replaceAll(CONTROL, "\ufffd");
  return LIKE_OURS.test(type) ? ENGINE_PREFIX + type : type;
}

/** After `unknown_cursor` the reader reads on from the turn's newest event, and not from the end of the gap. */
function toGapText(gap: TurnGap): string {
  const cursor = gap.reason === "unknown_cursor" ? gap.fromSeq - 1 : gap.toSeq;
  return `id: ${cursor}\nevent: ${OUR_PREFIX}gap\ndata: ${JSON.stringify(gap)}\n\n`;
}

function toEndText(end: TurnEnd): string {
  return `id: ${end.lastSeq}\nevent: ${OUR_PREFIX}end\ndata: ${JSON.stringify(end)}\n\n`;
}

/** The end KEY_REVOKED is the stream's, not the turn's: it has the reader's own cursor. */
function isKnown(end: TurnEnd, afterSeq: number): boolean {
  return end.reason !== "KEY_REVOKED" && afterSeq >= end.lastSeq;
}
