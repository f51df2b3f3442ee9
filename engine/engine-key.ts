import { createHash, timingSafeEqual } from "node:crypto";

/** Compares hashes in constant time, so that the time of an answer reveals nothing about the key. */
export function isEngineKey(keyHash: Buffer, presented: unknown): boolean {
  if (typeof presented !== "string") return false;
  return timingSafeEqual(createHash("sha256").update(presented).digest(), keyHash);
}
