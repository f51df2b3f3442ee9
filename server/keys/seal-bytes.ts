import { createCipheriv, createDecipheriv, randomBytes, type KeyObject } from "node:crypto";

export const SEALING_KEY_BYTES = 32;

const CIPHER = "aes-256-gcm";
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** A sealed text does not open. */
export class SealError extends Error {
  override readonly name = "SealError";
}

/**
 * AES-256-GCM as nonce, ciphertext and tag. The nonce is random, so one key may seal up to 2^32 texts. `openBytes` needs
 * the same associated data.
 */
export function sealBytes(key: KeyObject, plaintext: string | Buffer, associatedData: string): Buffer {
  return Buffer.concat(sealParts(key, plaintext, associatedData));
}

/** The same in parts, for a caller that joins them with more. */
export function sealParts(key: KeyObject, plaintext: string | Buffer, associatedData: string): Buffer[] {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(Buffer.from(associatedData, "utf8"));
  const body = typeof plaintext === "string" ? cipher.update(plaintext, "utf8") : cipher.update(plaintext);
  return [nonce, body, cipher.final(), cipher.getAuthTag()];
}

/** Throws a SealError if the bytes are damaged, or the key or the associated data is another. */
export function openBytes(key: KeyObject, sealed: Buffer, associatedData: string): Buffer {
  if (sealed.length < NONCE_BYTES + TAG_BYTES)
    throw new SealError("the sealed text is too short: it was cut");
  const decipher = createDecipheriv(CIPHER, key, sealed.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(Buffer.from(associatedData, "utf8"));
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  const body = sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES);
  try {
    return Buffer.concat([decipher.update(body), decipher.final()]);
  } catch (error) {
    throw new SealError("the sealed text is damaged, or belongs to another row", { cause: error });
  }
}
