import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hasMoreValuesThan } from "../../server/json/json-values.ts";

/** Counts every value and every key of a parsed value. */
function countValues(value: unknown): number {
  if (typeof value !== "object" || value === null) return 1;
  const keys = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce((sum: number, inner) => sum + countValues(inner), 1 + keys);
}

function expectCount(json: string, count: number): void {
  const bytes = Buffer.from(json);
  expect(hasMoreValuesThan(bytes, count - 1), json.slice(0, 200)).toBe(true);
  expect(hasMoreValuesThan(bytes, count), json.slice(0, 200)).toBe(false);
}

const anyText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.constantFrom('"', "\\", ",", "[", "{", ":", "é", "\n"), maxLength: 200 }),
);
const anyJson = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 5 },
    fc.constantFrom(null, true, 1.5e300),
    anyText,
    fc.array(tie("value")),
    fc.dictionary(anyText, tie("value")),
  ),
})).value;

test("every value and every key counts once, whatever the strings and the white space have", () => {
  const property = fc.property(anyJson, fc.constantFrom(0, 1, "\t"), (value, indent) => {
    const json = JSON.stringify(value, null, indent);
    // What JSON.parse sees: two equal keys in the text are one key of the object, so count the parsed value.
    expectCount(json, countValues(JSON.parse(json)));
  });
  fc.assert(property, { numRuns: 500 });
});

describe("strings of any length and with any escape are one value", () => {
  const texts: [string, string][] = [
    ["a long string", "x".repeat(100_000)],
    ["separators", ',[{:"'.repeat(20_000)],
    ["quotes far apart", `${"x".repeat(70)}"`.repeat(1_000)],
    ["backslashes", "\\".repeat(10_001)],
    ["a backslash at the border of a short string", `${"x".repeat(47)}\\`],
    ["a quote at the border of a short string", `${"x".repeat(47)}"`],
  ];
  test.each(texts)("%s", (_what, text) => {
    expectCount(JSON.stringify({ [text]: [text, text] }), 5);
  });
});

test.each(['"', '"\\', '{"a', '["', '[{"a":"', "", "[", "{  ", "\\"])(
  "bytes that break off (%j) are counted to their end",
  (text) => {
    expect(hasMoreValuesThan(Buffer.from(text), 10)).toBe(false);
  },
);

test("counting stops at the limit", () => {
  expect(hasMoreValuesThan(Buffer.from(`[${"[],".repeat(200_000)}1]`), 50_000)).toBe(true);
  expect(hasMoreValuesThan(Buffer.from(",".repeat(100)), 50)).toBe(true);
});
