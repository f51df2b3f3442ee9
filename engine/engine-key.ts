import { createHash, timingSafeEqual } from "node:crypto";

/** Compares hashes in constant time: neither the key's length nor its first wrong byte shows in the answer's time. */
export function isEngineKey(keyHash: Buffer, presented: unknown): boolean {
  if (typeof presented !== "string") return false;
  return timingSafeEqual(createHash("sha256").update(presented).digest(), keyHash);
}
