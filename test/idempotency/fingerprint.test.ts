import { hash } from "node:crypto";
import { expect, test } from "vitest";
import { isFingerprint, toFingerprint } from "../../server/idempotency/fingerprint.ts";
import { toCanonicalJson } from "../../server/json/canonical-json.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";

const masterKeys = generateMasterKeys();
const keyring = openKeyring(masterKeys);
const fingerprintOf = (input: unknown) => toFingerprint(keyring, ["row"], input).stored;

test("the order of properties does not change a fingerprint, at any depth", () => {
  const one = { a: 1, list: [{ 10: "x", 9: "y" }], b: { c: null, d: undefined } };
  const other = { b: { c: null }, list: [{ 9: "y", 10: "x" }], a: 1 };
  expect(fingerprintOf(one)).toBe(fingerprintOf(other));
  expect(fingerprintOf([1, 2])).not.toBe(fingerprintOf([2, 1]));
});

test("inputs with different lone surrogates have different fingerprints, in any order of properties", () => {
  const texts = ["\ud800", "\udfff", "\ufffd", "\\ud800"];
  expect(new Set(texts.map((text) => fingerprintOf({ text }))).size).toBe(texts.length);
  expect(fingerprintOf({ a: 1, b: "\ud800" })).toBe(fingerprintOf({ b: "\ud800", a: 1 }));
});

test("a stored fingerprint does not show a short input, nor that two rows have the same input", () => {
  const input = { answer: "yes" };
  const { stored } = toFingerprint(keyring, ["row 1"], input);
  expect(stored).not.toContain(hash("sha256", toCanonicalJson(input), "hex"));
  expect(stored).not.toContain(hash("sha256", toCanonicalJson(input), "base64url"));
  expect(toFingerprint(keyring, ["row 2"], input).stored).not.toBe(stored);
  expect(toFingerprint(openKeyring(generateMasterKeys()), ["row 1"], input).stored).not.toBe(stored);
});

test("a fingerprint of an earlier master key, or of an earlier version, still recognises its input", () => {
  const input = { answer: "yes" };
  const { stored } = toFingerprint(keyring, ["row"], input);
  const rotated = openKeyring(`${generateMasterKeys()},${masterKeys}`);
  const bareHash = hash("sha256", toCanonicalJson(input), "hex");
  for (const known of [stored, bareHash]) {
    expect(isFingerprint(rotated, known, toFingerprint(rotated, ["row"], input))).toBe(true);
    expect(isFingerprint(rotated, known, toFingerprint(rotated, ["row"], { answer: "no" }))).toBe(false);
  }
});

test("an input that nests too deep is INVALID_INPUT", () => {
  let input: unknown = null;
  for (let depth = 0; depth < 100_000; depth += 1) input = [input];
  expect(() => fingerprintOf(input)).toThrow(expect.objectContaining({ reason: "INVALID_INPUT" }));
});
