import { createHash } from "node:crypto";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { createKey, findKeyKind, hashKey, KEY_KINDS } from "../../server/keys/key-format.ts";

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** CRC32 computed bit by bit, independently of the implementation. */
function toCrc32(text: string): number {
  let crc = 0xffffffff;
  for (const byte of Buffer.from(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

function toDigits(value: number): string {
  const digits = Array.from({ length: 6 }, (_, place) =>
    ALPHABET.charAt(Math.floor(value / 62 ** place) % 62),
  );
  return digits.toReversed().join("");
}

test("a new key of each kind is recognised as that kind, and its hash is the SHA-256 of the plaintext", () => {
  for (const kind of KEY_KINDS) {
    for (let round = 0; round < 200; round += 1) {
      const key = createKey(kind);
      expect(key.plaintext).toMatch(/^eh[epa]_[0-9A-Za-z]{36}$/);
      expect(findKeyKind(key.plaintext)).toBe(kind);
      expect(key.hash).toBe(createHash("sha256").update(key.plaintext).digest("hex"));
      expect(key.plaintext.startsWith(key.prefix)).toBe(true);
      expect(key.prefix).toHaveLength(10);
    }
  }
});

test("the checksum is the CRC32 of the random part, most significant digit first and padded with zeros", () => {
  for (const random of ["0".repeat(30), "abcdefghijklmnopqrstuvwxyzABCD", "Z".repeat(30)]) {
    expect(findKeyKind(`ehp_${random}${toDigits(toCrc32(random))}`)).toBe("platform");
  }
});

test("a key with one changed, missing or added character is not recognised", () => {
  const { plaintext } = createKey("platform");
  fc.assert(
    fc.property(
      fc.nat(plaintext.length - 1),
      fc.constantFrom(...ALPHABET.split(""), " ", "\n", "é"),
      (at, other) => {
        fc.pre(plaintext.charAt(at) !== other);
        const changed = plaintext.slice(0, at) + other + plaintext.slice(at + 1);
        // The checksum does not cover the prefix: with the prefix of another kind, the key is well-formed.
        fc.pre(!/^eh[ea]_/.test(changed));
        expect(findKeyKind(changed)).toBeUndefined();
        expect(findKeyKind(plaintext.slice(0, at) + plaintext.slice(at + 1))).toBeUndefined();
        expect(findKeyKind(plaintext + other)).toBeUndefined();
        expect(findKeyKind(other + plaintext)).toBeUndefined();
      },
    ),
  );
});

test("an arbitrary text is not recognised as a key", () => {
  fc.assert(fc.property(fc.string(), (text) => findKeyKind(text) === undefined));
});

test("each character of the alphabet is equally frequent in random parts", () => {
  const counts = new Map<string, number>();
  const keys = 4_000;
  for (let round = 0; round < keys; round += 1) {
    for (const digit of createKey("engine").plaintext.slice(4, 34)) {
      counts.set(digit, (counts.get(digit) ?? 0) + 1);
    }
  }
  const expected = (keys * 30) / 62;
  // Seven standard deviations. Bytes modulo 62 would have a bias of 25 %.
  const tolerance = 7 * Math.sqrt(expected);
  expect(counts.size).toBe(62);
  for (const count of counts.values()) expect(Math.abs(count - expected)).toBeLessThan(tolerance);
});

test("a hash is the lower-case hex SHA-256 of the UTF-8 bytes", () => {
  expect(hashKey("abc")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
});
