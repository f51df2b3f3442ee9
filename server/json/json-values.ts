/** Each value costs time in every step from the parser to the engine, so their number is bounded like the bytes. */
export const JSON_MAX_VALUES = 50_000;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** Longer strings are searched for their end by native code. A native call for each short string would cost more. */
const SHORT_STRING_BYTES = 48;

/** What a byte means outside of strings. */
const NOTHING = 0;
const SEPARATOR = 1;
const OPENING = 2;
const STRING = 3;
const MEANINGS = new Uint8Array(256);
for (const separator of Buffer.from(",:")) MEANINGS[separator] = SEPARATOR;
for (const opening of Buffer.from("[{")) MEANINGS[opening] = OPENING;
MEANINGS[QUOTE] = STRING;

/**
 * Tells whether JSON has more than `limit` values, where a key of an object counts as a value. Reads the bytes before
 * they are parsed: parsing and walking a value costs a hundred times more than this pass. Of bytes that are no JSON the
 * count means nothing, but it takes no longer.
 */
export function hasMoreValuesThan(json: Buffer, limit: number): boolean {
  let count = 1;
  for (let at = 0; at < json.length; at += 1) {
    const meaning = MEANINGS[json[at] ?? 0];
    if (meaning === NOTHING) continue;
    if (meaning === STRING) at = findStringEnd(json, at + 1);
    else if (meaning === SEPARATOR || !isClosing(json, at + 1)) count += 1;
    if (count > limit) return true;
  }
  return count > limit;
}

/** Returns where the string ends that began before `from`: the index of its quote, or the length of the bytes. */
function findStringEnd(json: Buffer, from: number): number {
  let at = from;
  for (;;) {
    const shortEnd = Math.min(at + SHORT_STRING_BYTES, json.length);
    for (; at < shortEnd; at += 1) {
      const byte = json[at];
      if (byte === QUOTE) return at;
      if (byte === BACKSLASH) at += 1;
    }
    if (at >= json.length) return json.length;
    const quote = json.indexOf(QUOTE, at);
    if (quote === -1) return json.length;
    if (!isEscaped(json, at, quote)) return quote;
    at = quote + 1;
  }
}

/** True if an odd number of backslashes precedes the byte. None before `from` counts: that byte is not escaped. */
function isEscaped(json: Buffer, from: number, at: number): boolean {
  let first = at;
  while (first > from && json[first - 1] === BACKSLASH) first -= 1;
  return (at - first) % 2 === 1;
}

/** True if nothing but white space precedes the end of the list or object that was opened before `from`. */
function isClosing(json: Buffer, from: number): boolean {
  let at = from;
  while (isWhiteSpace(json[at])) at += 1;
  return json[at] === 0x5d || json[at] === 0x7d;
}

function isWhiteSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
