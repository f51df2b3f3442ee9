import { createCipheriv, createDecipheriv, createSecretKey, randomBytes, type KeyObject } from "node:crypto";

/** Seals secrets for the database. Texts are bound to their place by associated data and open nowhere else. */
export interface Keyring {
  /** Seals with the first key. */
  seal(plaintext: string, associatedData: string): string;
  /** Opens what any key of the ring sealed; throws on a foreign, damaged or misplaced text. */
  open(sealed: string, associatedData: string): string;
  readonly firstKeyId: string;
}

const VERSION = "v1";
const CIPHER = "aes-256-gcm";
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_ID_PATTERN = /^[A-Za-z0-9_-]{1,32}$/;
const BASE64_PATTERN = /^(?:[A-Za-z0-9+/]+|[A-Za-z0-9_-]+)={0,2}$/;

/**
 * @param masterKeys `id:base64,…` with 32-byte keys: the first seals, all open.
 * @throws Error that names a bad entry by its position, never by what it holds.
 */
export function openKeyring(masterKeys: string): Keyring {
  const keys = new Map<string, KeyObject>();
  for (const [index, entry] of masterKeys.split(",").entries()) {
    const { keyId, key } = readEntry(entry.trim(), index + 1);
    if (keys.has(keyId)) throw new Error(`entry ${index + 1} has the id of an earlier entry`);
    keys.set(keyId, key);
  }
  const [first] = keys;
  if (first === undefined) throw new Error("there is no entry");
  const [firstKeyId, firstKey] = first;
  return {
    firstKeyId,
    seal: (plaintext, associatedData) =>
      `${VERSION}.${firstKeyId}.${seal(firstKey, plaintext, associatedData)}`,
    open: (sealed, associatedData) => {
      const [version, keyId = "", body = "", ...rest] = sealed.split(".");
      if (version !== VERSION || rest.length > 0) throw new Error("not a text that a keyring has sealed");
      const key = keys.get(keyId);
      if (key === undefined)
        throw new Error(`sealed with master key "${keyId}", which is not in the keyring`);
      return open(key, Buffer.from(body, "base64url"), associatedData);
    },
  };
}

/** A ring with one fresh key, in the form that `openKeyring` takes. */
export function generateMasterKeys(): string {
  return `k${randomBytes(4).toString("hex")}:${randomBytes(KEY_BYTES).toString("base64")}`;
}

function readEntry(entry: string, position: number): { keyId: string; key: KeyObject } {
  const colon = entry.indexOf(":");
  if (colon < 0) throw new Error(`entry ${position} is not of the form id:base64`);
  const keyId = entry.slice(0, colon);
  if (!KEY_ID_PATTERN.test(keyId)) {
    throw new Error(`entry ${position} has an id that is not 1 to 32 letters, digits, dashes or underscores`);
  }
  const encoded = entry.slice(colon + 1);
  const bytes = Buffer.from(encoded, "base64");
  if (!BASE64_PATTERN.test(encoded) || bytes.length !== KEY_BYTES) {
    throw new Error(`entry ${position} is not ${KEY_BYTES} bytes in base64`);
  }
  return { keyId, key: createSecretKey(bytes) };
}

function seal(key: KeyObject, plaintext: string, associatedData: string): string {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(Buffer.from(associatedData, "utf8"));
  const sealed = Buffer.concat([
    nonce,
    cipher.update(plaintext, "utf8"),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
  return sealed.toString("base64url");
}

function open(key: KeyObject, sealed: Buffer, associatedData: string): string {
  if (sealed.length < NONCE_BYTES + TAG_BYTES) throw new Error("a sealed text that was cut short");
  const decipher = createDecipheriv(CIPHER, key, sealed.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(Buffer.from(associatedData, "utf8"));
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  const body = sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES);
  try {
    return Buffer.concat([decipher.update(body), decipher.final()]).toString("utf8");
  } catch (error) {
    throw new Error("a sealed text that is damaged or not from this place", { cause: error });
  }
}
