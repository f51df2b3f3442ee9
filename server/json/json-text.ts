/*
 * Parsing JSON and writing it again changes it: 9007199254740993 becomes …992, 1e400 becomes null, and 1.0 becomes 1.
 * So what only passes through the service keeps its text. These functions find the parts of a text that JSON.parse has
 * accepted; of any other text they return nonsense. Each reads the text once.
 */

const SOURCE = Symbol("the JSON text of an object");

/** Notes the text that the object was parsed from. Copies of the object do not have the text. Do not change the object: its text would stay. */
export function withSource<Value extends object>(value: Value, text: string): Value {
  return Object.defineProperty(value, SOURCE, { value: text });
}

/** undefined: the value does not come from JSON text, or its text was not noted. */
export function findSource(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null || !(SOURCE in value)) return undefined;
  return value[SOURCE] as string;
}

/** The value as JSON: its source text if that is known. */
export function toJsonText(value: unknown): string {
  return findSource(value) ?? JSON.stringify(value);
}

/** The members of a JSON object, in order: names as strings, values as JSON text. A name may come more than once. */
export function splitObject(text: string): [name: string, value: string][] {
  const members: [string, string][] = [];
  visitMembers(text, (name, from, end) => members.push([name, text.slice(from, end)]));
  return members;
}

/** The text of the object's member of this name, as JSON.parse chooses it: the last one. */
export function findMember(text: string, wanted: string): string | undefined {
  let found: string | undefined;
  visitMembers(text, (name, from, end) => {
    if (name === wanted) found = text.slice(from, end);
  });
  return found;
}

function visitMembers(text: string, visit: (name: string, from: number, end: number) => void): void {
  let at = skipSpace(text, skipSpace(text, 0) + 1);
  while (text.charCodeAt(at) === QUOTE) {
    const nameEnd = endOfString(text, at);
    const name = parseString(text.slice(at, nameEnd));
    const from = skipSpace(text, skipSpace(text, nameEnd) + 1);
    const end = endOfValue(text, from);
    visit(name, from, end);
    at = skipSpace(text, skipSpace(text, end) + 1);
  }
}

/** Strings without an escape, which are most, need no parser. */
export function parseString(token: string): string {
  return token.includes("\\") ? (JSON.parse(token) as string) : token.slice(1, -1);
}

/** The items of a JSON array, as JSON text. */
export function splitArray(text: string): string[] {
  const items: string[] = [];
  let at = skipSpace(text, skipSpace(text, 0) + 1);
  while (at < text.length && text.charCodeAt(at) !== CLOSE_BRACKET) {
    const end = endOfValue(text, at);
    items.push(text.slice(at, end));
    const next = skipSpace(text, end);
    at = text.charCodeAt(next) === COMMA ? skipSpace(text, next + 1) : next;
  }
  return items;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const SPACE = 0x20;

export function skipSpace(text: string, from: number): number {
  let at = from;
  // Of the characters up to the space, JSON has only white space between its tokens.
  while (text.charCodeAt(at) <= SPACE) at += 1;
  return at;
}

export function endOfString(text: string, from: number): number {
  for (let at = from; ;) {
    const quote = text.indexOf('"', at + 1);
    if (quote < 0) return text.length;
    let backslashes = 0;
    while (text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes += 1;
    if (backslashes % 2 === 0) return quote + 1;
    at = quote;
  }
}

export function endOfValue(text: string, from: number): number {
  let depth = 0;
  let at = from;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (depth === 0 && at > from && isAfterValue(code)) return at;
    if (code === QUOTE) at = endOfString(text, at);
    else {
      if (code === OPEN_BRACE || code === OPEN_BRACKET) depth += 1;
      else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) depth -= 1;
      at += 1;
    }
  }
  return at;
}

function isAfterValue(code: number): boolean {
  return code === COMMA || code === CLOSE_BRACE || code === CLOSE_BRACKET || code <= SPACE;
}
