import * as fc from "fast-check";
import { expect, test } from "vitest";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";

const key = (fill: number) => Buffer.alloc(32, fill).toString("base64");

test("a sealed text opens only with its associated data, and sealing twice gives two texts", () => {
  const ring = openKeyring(generateMasterKeys());
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), fc.string(), (plaintext, associatedData) => {
      const sealed = ring.seal(plaintext, associatedData);
      expect(sealed).toMatch(new RegExp(`^v1\\.${ring.firstKeyId}\\.[A-Za-z0-9_-]+$`));
      expect(ring.open(sealed, associatedData)).toBe(plaintext);
      expect(ring.seal(plaintext, associatedData)).not.toBe(sealed);
      expect(() => ring.open(sealed, `${associatedData}x`)).toThrow("belongs to another row");
    }),
  );
});

test("the first key seals, and all keys open", () => {
  const before = openKeyring(`old:${key(1)}`).seal("secret", "row 1");
  const ring = openKeyring(`new:${key(2)}, old:${key(1)}`);
  expect(ring.firstKeyId).toBe("new");
  expect(ring.open(before, "row 1")).toBe("secret");
  const after = ring.seal("secret", "row 1");
  expect(after.startsWith("v1.new.")).toBe(true);
  expect(openKeyring(`new:${key(2)}`).open(after, "row 1")).toBe("secret");
});

test("opening a text whose key is not in the keyring names the missing key", () => {
  const sealed = openKeyring(`gone:${key(1)}`).seal("secret", "");
  expect(() => openKeyring(`new:${key(2)}`).open(sealed, "")).toThrow('master key "gone"');
});

test("a sealed text with any changed byte does not open", () => {
  const ring = openKeyring(`a:${key(1)}`);
  const sealed = ring.seal("secret", "row");
  const body = Buffer.from(sealed.slice("v1.a.".length), "base64url");
  for (let index = 0; index < body.length; index += 1) {
    const damaged = Buffer.from(body);
    damaged.writeUInt8(damaged.readUInt8(index) ^ 1, index);
    expect(() => ring.open(`v1.a.${damaged.toString("base64url")}`, "row")).toThrow();
  }
  for (const cut of [
    "",
    "v1",
    "v1.a",
    "v1.a.",
    "v2.a.AAAA",
    "v1.a.AAAA",
    `${sealed}.x`,
    sealed.slice(0, -4),
  ]) {
    expect(() => ring.open(cut, "row")).toThrow();
  }
});

test("an error names a bad entry by its position, never by its content", () => {
  const short = Buffer.alloc(31, 7).toString("base64");
  const cases: [string, string][] = [
    ["", "entry 1"],
    [`a:${key(1)},`, "entry 2"],
    [`a:${key(1)},a:${key(2)}`, "entry 2"],
    [`a:${short}`, "entry 1"],
    [`a:${key(1)}AAAA`, "entry 1"],
    [`a:${key(1)},b:SecretSecretSecret!`, "entry 2"],
    [`:${key(1)}`, "entry 1"],
    [key(3), "entry 1"],
    [`a b:${key(1)}`, "entry 1"],
  ];
  for (const [text, position] of cases) {
    let message = "";
    try {
      openKeyring(text);
    } catch (error) {
      message = String(error);
    }
    expect(message).toContain(position);
    for (const part of text.split(/[:,]/).filter((part) => part.length > 3)) {
      expect(message).not.toContain(part);
    }
  }
});
