import { createSecretKey, hkdfSync, randomBytes, type KeyObject } from "node:crypto";
import { openBytes, sealBytes, SealError, SEALING_KEY_BYTES } from "./seal-bytes.ts";

/**
 * Encrypts secrets for the database, and has the keys of its MACs. The associated data, a row id for instance, binds a
 * sealed text to its row.
 */
export interface Keyring {
  /** Encrypts with the first key. */
  seal(plaintext: string, associatedData: string): string;
  /**
   * Decrypts with any key of the ring. Throws SealError if the text is damaged, or the key or the associated data is
   * another.
   */
  open(sealed: string, associatedData: string): string;
  /** The key for MACs of this purpose, derived from that master key. undefined: the ring lacks that master key. */
  macKey(keyId: string, purpose: string): KeyObject | undefined;
  readonly firstKeyId: string;
  readonly keyIds: readonly string[];
}

const VERSION = "v1";
const KEY_ID_PATTERN = /^[A-Za-z0-9_-]{1,32}$/;
const BASE64_PATTERN = /^(?:[A-Za-z0-9+/]+|[A-Za-z0-9_-]+)={0,2}$/;

/**
 * @param masterKeys `id:base64,…` with keys of 32 bytes. The first key seals, all keys open.
 * @throws Error that names a bad entry by its position, never by its content, which may be a key.
 */
export function openKeyring(masterKeys: string): Keyring {
  const keys = new Map<string, KeyObject>();
  for (const [index, entry] of masterKeys.split(",").entries()) {
    const { keyId, key } = readEntry(entry.trim(), index + 1);
    if (keys.has(keyId))
      throw new Error(`entry ${index + 1} has the same id as an earlier entry: give each key its own id`);
    keys.set(keyId, key);
  }
  const [first] = keys;
  if (first === undefined) throw new Error("the keyring has no key: give at least one id:base64");
  const [firstKeyId, firstKey] = first;
  const macKeys = new Map<string, KeyObject>();
  return {
    firstKeyId,
    keyIds: [...keys.keys()],
    macKey: (keyId, purpose) => {
      const name = `${keyId} ${purpose}`;
      const known = macKeys.get(name);
      const masterKey = keys.get(keyId);
      if (known !== undefined || masterKey === undefined) return known;
      const derived = deriveMacKey(masterKey, purpose);
      macKeys.set(name, derived);
      return derived;
    },
    seal: (plaintext, associatedData) =>
      `${VERSION}.${firstKeyId}.${sealBytes(firstKey, plaintext, associatedData).toString("base64url")}`,
    open: (sealed, associatedData) => {
      const [version, keyId = "", body = "", ...rest] = sealed.split(".");
      if (version !== VERSION || rest.length > 0)
        throw new SealError("this is not a sealed text of version v1");
      const key = keys.get(keyId);
      if (key === undefined)
        throw new SealError(
          `the text was sealed with the master key "${keyId}", which is not in the keyring: add that key`,
        );
      return openBytes(key, Buffer.from(body, "base64url"), associatedData).toString("utf8");
    },
  };
}

/** HKDF-SHA-256. The master key itself seals, so a MAC must never use it directly. */
function deriveMacKey(masterKey: KeyObject, purpose: string): KeyObject {
  return createSecretKey(
    Buffer.from(hkdfSync("sha256", masterKey, "", `enginehouse mac ${purpose}`, SEALING_KEY_BYTES)),
  );
}

/** Makes one new key, in the format of `openKeyring`. */
export function generateMasterKeys(): string {
  return `k${randomBytes(4).toString("hex")}:${randomBytes(SEALING_KEY_BYTES).toString("base64")}`;
}

function readEntry(entry: string, position: number): { keyId: string; key: KeyObject } {
  const colon = entry.indexOf(":");
  if (colon < 0) throw new Error(`entry ${position} is not of the form id:base64`);
  const keyId = entry.slice(0, colon);
  if (!KEY_ID_PATTERN.test(keyId)) {
    throw new Error(`entry ${position} has a bad id: use 1 to 32 letters, digits, dashes or underscores`);
  }
  const encoded = entry.slice(colon + 1);
  const bytes = Buffer.from(encoded, "base64");
  if (!BASE64_PATTERN.test(encoded) || bytes.length !== SEALING_KEY_BYTES) {
    throw new Error(`entry ${position} is not ${SEALING_KEY_BYTES} bytes in base64`);
  }
  return { keyId, key: createSecretKey(bytes) };
}
