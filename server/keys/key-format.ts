import { hash, randomInt } from "node:crypto";
import { crc32 } from "node:zlib";

export const KEY_KINDS = ["engine", "platform", "operator"] as const;
export type KeyKind = (typeof KEY_KINDS)[number];

export interface NewKey {
  /** Shown to the caller once. Stored only if it is sealed. */
  plaintext: string;
  /** All that is needed to check a key. */
  hash: string;
  /** The first characters, by which people tell keys apart in a list. */
  prefix: string;
}

const PREFIXES = { engine: "ehe", platform: "ehp", operator: "eha" } as const satisfies Record<
  KeyKind,
  string
>;
const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_LENGTH = 30;
const CHECKSUM_LENGTH = 6;
const SHOWN_LENGTH = 10;

const KEY_PATTERN = /^(?<prefix>eh[epa])_(?<random>[0-9A-Za-z]{30})(?<checksum>[0-9A-Za-z]{6})$/;

export function createKey(kind: KeyKind): NewKey {
  let random = "";
  while (random.length < RANDOM_LENGTH) random += ALPHABET.charAt(randomInt(ALPHABET.length));
  const plaintext = `${PREFIXES[kind]}_${random}${toChecksum(random)}`;
  return { plaintext, hash: hashKey(plaintext), prefix: plaintext.slice(0, SHOWN_LENGTH) };
}

/** Lower-case hex SHA-256: the form in the database, and in the `ENGINE_KEY_HASH` of engines. */
export function hashKey(plaintext: string): string {
  return hash("sha256", plaintext, "hex");
}

/** The kind of a well-formed key; undefined if prefix, length, alphabet or checksum is wrong. */
export function findKeyKind(plaintext: string): KeyKind | undefined {
  const parts = KEY_PATTERN.exec(plaintext)?.groups;
  if (parts?.["random"] === undefined || toChecksum(parts["random"]) !== parts["checksum"]) return undefined;
  return KEY_KINDS.find((kind) => PREFIXES[kind] === parts["prefix"]);
}

/** CRC32 in base62, most significant digit first. It detects typing errors and cut keys; it is no protection. */
function toChecksum(random: string): string {
  let rest = crc32(random);
  let digits = "";
  while (digits.length < CHECKSUM_LENGTH) {
    digits = ALPHABET.charAt(rest % ALPHABET.length) + digits;
    rest = Math.floor(rest / ALPHABET.length);
  }
  return digits;
}
