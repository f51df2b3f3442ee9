import { endOfString, endOfValue, findSource, parseString, skipSpace } from "./json-text.ts";

/**
 * Canonical JSON: equal for values that differ only in the order of properties, in white space and in escapes. Numbers
 * are written as in RFC 8785, but a number whose source text is known is written so: 1.0 differs from 1.
 */
export function toCanonicalJson(value: unknown): string {
  const source = findSource(value);
  if (source !== undefined) return new CanonicalReader(source).readValue();
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "";
  if (Array.isArray(value)) return `[${value.map((item) => toCanonicalJson(item ?? null)).join(",")}]`;
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return toObject(members.map(([name, member]) => [name, toCanonicalJson(member)]));
}

function toObject(members: [name: string, json: string][]): string {
  const sorted = members.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${sorted.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(",")}}`;
}

/** Reads text that JSON.parse has accepted, once from start to end. */
class CanonicalReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  readValue(): string {
    const first = this.#peek();
    if (first === "{") return this.#readObject();
    if (first === "[") return this.#readArray();
    return first === '"' ? this.#readString() : this.#take(endOfValue(this.#text, this.#at));
  }

  #readObject(): string {
    // As for JSON.parse, the last member of a name counts.
    const members = new Map<string, string>();
    this.#at += 1;
    while (this.#peek() !== "}") {
      const name = parseString(this.#readString());
      this.#peek();
      this.#at += 1;
      members.set(name, this.readValue());
      if (this.#peek() === ",") this.#at += 1;
    }
    this.#at += 1;
    return toObject([...members]);
  }

  #readArray(): string {
    const items: string[] = [];
    this.#at += 1;
    while (this.#peek() !== "]") {
      items.push(this.readValue());
      if (this.#peek() === ",") this.#at += 1;
    }
    this.#at += 1;
    return `[${items.join(",")}]`;
  }

  #readString(): string {
    const token = this.#take(endOfString(this.#text, this.#at));
    // JSON.stringify writes a string without an escape as it is.
    return token.includes("\\") ? JSON.stringify(JSON.parse(token)) : token;
  }

  /** The next character that is not white space. */
  #peek(): string | undefined {
    this.#at = skipSpace(this.#text, this.#at);
    if (this.#at >= this.#text.length) throw new Error("the source of a value is not JSON");
    return this.#text[this.#at];
  }

  #take(end: number): string {
    const token = this.#text.slice(this.#at, end);
    this.#at = end;
    return token;
  }
}
