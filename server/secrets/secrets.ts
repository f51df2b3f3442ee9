import { decodeText, locateCharacters, undoEscapes } from "./decode-text.ts";
import { LONG_VALUE, toSecretValues } from "./secret-values.ts";

const HIDDEN = "[hidden]";
/** Every key of ours, of any kind. */
const OWN_KEY = /eh[epa]_[0-9A-Za-z]{36,}/g;
const OWN_KEY_LENGTH = 40;
/** Text that may be base64, in both alphabets, or hex. */
const BASE64 = /[\w+/-]{11,}={0,2}/g;
const HEX = /[0-9a-f]{16,}/gi;
/** An encoded character takes rarely more characters than this. */
const ENCODED_LENGTH = 8;
const MAX_MARGIN = 64 * 1024;

interface Range {
  from: number;
  to: number;
}

/**
 * Values that must not appear in words that are stored, logged or answered. Hides them, and all keys in the format of
 * ours, in every text: plain, and encoded for JSON, URLs, forms, HTML, base64 or hex, also several times.
 *
 * ```
 * text ─▶ decode in each way ─▶ find the values ─▶ where they are in the text ─▶ [hidden]
 * ```
 */
export class Secrets {
  readonly #values: readonly string[];
  readonly #margin: number;
  /** A shorter text holds no secret. */
  readonly #shortest: number;

  constructor(values: Iterable<string>) {
    this.#values = toSecretValues(values);
    this.#margin = Math.min(MAX_MARGIN, Math.max(64, this.#values[0]?.length ?? 0) * ENCODED_LENGTH);
    this.#shortest = Math.min(OWN_KEY_LENGTH, this.#values.at(-1)?.length ?? OWN_KEY_LENGTH);
  }

  /** These secrets and one more. */
  and(value: string): Secrets {
    return new Secrets([...this.#values, value]);
  }

  hide(text: string): string {
    const ranges = this.#findRanges(text);
    return ranges.length === 0 ? text : replaceRanges(text, ranges);
  }

  /** The first `length` characters, or less. A secret that is cut there is hidden too. */
  hideInStart(text: string, length: number): string {
    const ranges = this.#findRanges(text.slice(0, length + this.#margin));
    return replaceRanges(text.slice(0, length), ranges);
  }

  /** The last `length` characters, or less. A secret that is cut there is hidden too. */
  hideInEnd(text: string, length: number): string {
    const from = Math.max(0, text.length - length - this.#margin);
    const cut = Math.max(0, text.length - length) - from;
    const ranges = this.#findRanges(text.slice(from)).map((range) => ({
      from: Math.max(0, range.from - cut),
      to: range.to - cut,
    }));
    return replaceRanges(text.slice(from + cut), ranges);
  }

  /** A copy of a JSON value, without secrets in its texts and names. Objects of a class stay as they are. */
  hideIn(value: unknown): unknown {
    if (typeof value === "string") return this.hide(value);
    if (Array.isArray(value)) return value.map((item) => this.hideIn(item));
    if (!isPlainObject(value)) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [this.hide(name), this.hideIn(item)]),
    );
  }

  #findRanges(text: string): Range[] {
    if (text.length < this.#shortest) return [];
    const ranges: Range[] = [];
    for (const decoded of decodeText(text)) {
      const found = [...this.#findIn(decoded.text)];
      if (found.length === 0) continue;
      const starts = locateCharacters(text, decoded.undone);
      for (const { from, to } of found) ranges.push({ from: starts[from] ?? from, to: starts[to] ?? to });
    }
    return ranges;
  }

  *#findIn(text: string): Generator<Range, void, undefined> {
    yield* this.#findPlain(text);
    for (const match of text.matchAll(BASE64)) {
      if (this.#isEncoded(match[0], "base64", 4)) yield toRange(match);
    }
    for (const match of text.matchAll(HEX)) {
      if (this.#isEncoded(match[0], "hex", 2)) yield toRange(match);
    }
  }

  *#findPlain(text: string): Generator<Range, void, undefined> {
    for (const match of text.matchAll(OWN_KEY)) yield toRange(match);
    for (const value of this.#values) {
      for (let from = text.indexOf(value); from !== -1; from = text.indexOf(value, from + 1)) {
        const range = { from, to: from + value.length };
        if (value.length >= LONG_VALUE || isWhole(text, range)) yield range;
      }
    }
  }

  /** True if the run of characters, read from one of its first ones, holds a long secret. */
  #isEncoded(run: string, encoding: "base64" | "hex", group: number): boolean {
    for (let skipped = 0; skipped < group; skipped += 1) {
      const text = Buffer.from(run.slice(skipped), encoding).toString("utf8");
      if (this.#hasLong(text) || this.#hasLong(undoEscapes(text))) return true;
    }
    return false;
  }

  #hasLong(text: string): boolean {
    return this.#findPlain(text).some(({ from, to }) => to - from >= LONG_VALUE);
  }
}

function toRange(match: RegExpExecArray): Range {
  return { from: match.index, to: match.index + match[0].length };
}

/** False if a letter or digit of the range continues a longer word outside of it. */
function isWhole(text: string, { from, to }: Range): boolean {
  return !isInsideWord(text, from) && !isInsideWord(text, to);
}

/** True if the characters before and behind the place belong to the same word. */
function isInsideWord(text: string, at: number): boolean {
  return /^\w\w$/.test(text.slice(Math.max(0, at - 1), at + 1));
}

/** Ranges may overlap, and may reach beyond the text. */
function replaceRanges(text: string, ranges: readonly Range[]): string {
  let shown = "";
  let at = 0;
  for (const { from, to } of ranges.toSorted((a, b) => a.from - b.from)) {
    if (to <= at || from >= text.length) continue;
    // A range that continues the last one adds no second mark.
    if (from > at || at === 0) shown += text.slice(at, Math.max(at, from)) + HIDDEN;
    at = to;
  }
  return shown + text.slice(at);
}

function isPlainObject(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) return false;
  // A number that keeps its source text is an object without a prototype.
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype;
}

/** Hides the keys of this service, which are secrets without being named. */
export const OUR_KEYS = new Secrets([]);
