/** A text, and the patterns of the encodings that were undone to get it. */
export interface DecodedText {
  text: string;
  undone: readonly RegExp[];
}

const ESCAPE = /\\(?:u\{[0-9a-f]{1,6}\}|u[0-9a-f]{4}|x[0-9a-f]{2}|["'`\\/bfnrt])/gi;
const URL_BYTES = /(?:%[0-9a-f]{2})+/gi;
const FORM = /\+|(?:%[0-9a-f]{2})+/gi;
const HTML_ENTITY = /&(?:#x[0-9a-f]{1,6}|#\d{1,7}|quot|amp|lt|gt|apos);/gi;
/** Colours and the like: they may stand inside a value. */
// eslint-disable-next-line no-control-regex -- the sequences begin with a control character
const TERMINAL = /\u001b\[[0-9;]*[A-Za-z]/g;
const ANY = new RegExp(
  [ESCAPE, URL_BYTES, HTML_ENTITY, TERMINAL].map(({ source }) => source).join("|"),
  "gi",
);

/**
 * The ways in which a text is decoded. `ANY` undoes every mix. The others are for values that look encoded themselves:
 * undoing all encodings would change such a value.
 */
const WAYS: readonly (readonly RegExp[])[] = [
  [ANY, ANY, ANY, ANY],
  [ESCAPE, ESCAPE, ESCAPE],
  [URL_BYTES, URL_BYTES],
  [URL_BYTES, ESCAPE],
  [FORM, ESCAPE],
  [HTML_ENTITY, ESCAPE],
  [TERMINAL, ESCAPE],
];

const ESCAPED: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const ENTITIES: Readonly<Record<string, string>> = { quot: '"', amp: "&", lt: "<", gt: ">", apos: "'" };

/** The text itself first, then all different texts that it may have been before it was encoded. */
export function* decodeText(text: string): Generator<DecodedText, void, undefined> {
  yield { text, undone: [] };
  const known = new Set([text]);
  for (const way of WAYS) {
    let decoded = text;
    for (const [index, pattern] of way.entries()) {
      const before = decoded;
      decoded = before.replace(pattern, decodeMatch);
      if (decoded === before) break;
      if (known.has(decoded)) continue;
      known.add(decoded);
      yield { text: decoded, undone: way.slice(0, index + 1) };
    }
  }
}

/** Undoes one layer of JSON's escapes, and of similar ones. */
export function undoEscapes(text: string): string {
  return text.replace(ESCAPE, decodeMatch);
}

/** Finds where each character of a decoded text begins in the original, with the original's end as the last item. */
export function locateCharacters(original: string, undone: readonly RegExp[]): readonly number[] {
  let text = original;
  let starts = Array.from({ length: original.length + 1 }, (_, at) => at);
  for (const pattern of undone) {
    const next: number[] = [];
    let last = 0;
    for (const match of text.matchAll(pattern)) {
      const end = match.index + match[0].length;
      for (let at = last; at < match.index; at += 1) next.push(starts[at] ?? 0);
      for (const offset of toOffsets(match[0])) next.push(starts[Math.min(match.index + offset, end)] ?? 0);
      last = end;
    }
    for (let at = last; at <= text.length; at += 1) next.push(starts[at] ?? 0);
    text = text.replace(pattern, decodeMatch);
    starts = next;
  }
  return starts;
}

/** Where the decoded characters of a match begin in it. A byte in a URL takes three characters. */
function toOffsets(match: string): number[] {
  const text = decodeMatch(match);
  const toOffset = (index: number) =>
    match.startsWith("%") ? 3 * Buffer.byteLength(text.slice(0, index)) : 0;
  return Array.from({ length: text.length }, (_, index) => toOffset(index));
}

function decodeMatch(match: string): string {
  switch (match[0]) {
    case "\\":
      return decodeEscape(match);
    case "%":
      return Buffer.from(match.replaceAll("%", ""), "hex").toString("utf8");
    case "&":
      return decodeEntity(match);
    case "+":
      return " ";
    default:
      return "";
  }
}

function decodeEscape(match: string): string {
  const sign = match.slice(1);
  if (sign.length > 1) return toCharacter(Number.parseInt(sign.replaceAll(/[ux{}]/gi, ""), 16), match);
  return ESCAPED[sign] ?? sign;
}

function decodeEntity(match: string): string {
  const name = match.slice(1, -1).toLowerCase();
  if (!name.startsWith("#")) return ENTITIES[name] ?? match;
  const isHex = name.startsWith("#x");
  return toCharacter(Number.parseInt(name.slice(isHex ? 2 : 1), isHex ? 16 : 10), match);
}

function toCharacter(code: number, match: string): string {
  return code <= 0x10ffff ? String.fromCodePoint(code) : match;
}
