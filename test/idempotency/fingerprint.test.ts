import { expect, test } from "vitest";
import { toFingerprint } from "../../server/idempotency/fingerprint.ts";

test("the order of properties does not change a fingerprint, at any depth", () => {
  const one = { a: 1, list: [{ 10: "x", 9: "y" }], b: { c: null, d: undefined } };
  const other = { b: { c: null }, list: [{ 9: "y", 10: "x" }], a: 1 };
  expect(toFingerprint(one)).toBe(toFingerprint(other));
  expect(toFingerprint([1, 2])).not.toBe(toFingerprint([2, 1]));
});

test("inputs with different lone surrogates have different fingerprints, in any order of properties", () => {
  const texts = ["\ud800", "\udfff", "\ufffd", "\\ud800"];
  expect(new Set(texts.map((text) => toFingerprint({ text }))).size).toBe(texts.length);
  expect(toFingerprint({ a: 1, b: "\ud800" })).toBe(toFingerprint({ b: "\ud800", a: 1 }));
});

test("an input that nests too deep is INVALID_INPUT", () => {
  let input: unknown = null;
  for (let depth = 0; depth < 100_000; depth += 1) input = [input];
  expect(() => toFingerprint(input)).toThrow(expect.objectContaining({ reason: "INVALID_INPUT" }));
});
