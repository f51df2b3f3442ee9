/** Shorter values are hidden only as whole words, because they may be parts of harmless ones. */
export const LONG_VALUE = 8;
/** Shorter values are not hidden at all: they keep nothing secret. */
const SHORT_VALUE = 3;

/**
 * What to hide of these values: each value, each long line of it, each long text in it if it is JSON, and its password
 * if it is a URL. Engines take such values apart and log the parts.
 */
export function toSecretValues(values: Iterable<string>): string[] {
  const found = new Set<string>();
  for (const value of values) {
    for (const whole of [value, value.trim()]) if (isHideable(whole)) found.add(whole);
    for (const part of listParts(value)) if (part.length >= LONG_VALUE && isHideable(part)) found.add(part);
  }
  // Longer ones first: a part of a value would hide the value only in part.
  return [...found].toSorted((a, b) => b.length - a.length);
}

/** A value of punctuation alone would hide what separates the words of every text. */
function isHideable(value: string): boolean {
  return value.length >= SHORT_VALUE && /[\p{L}\p{N}]/u.test(value);
}

function* listParts(value: string): Generator<string, void, undefined> {
  const lines = value.split(/[\r\n]+/);
  if (lines.length > 1) yield* lines.map((line) => line.trim());
  const password = URL.canParse(value) ? new URL(value).password : "";
  if (password !== "") yield* [password, decodeLoosely(password)];
  for (const text of listTexts(parseLoosely(value))) {
    yield text;
    yield* listParts(text);
  }
}

function* listTexts(value: unknown): Generator<string, void, undefined> {
  if (typeof value === "string") yield value;
  else if (typeof value === "object" && value !== null) {
    for (const item of Object.values(value)) yield* listTexts(item);
  }
}

function parseLoosely(text: string): unknown {
  if (!/^\s*["[{]/.test(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function decodeLoosely(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
