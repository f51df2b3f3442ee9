import type { PlatformKeyRow, Scope } from "../../db/platform-keys.ts";
import { toInstant } from "../time/instant.ts";

/** A key as lists show it, without the plaintext. Instants are ISO strings. */
export interface Key {
  keyId: string;
  /** null for an operator key. */
  productId: string | null;
  name: string;
  /** The first characters, by which people tell keys apart. */
  prefix: string;
  scopes: Scope[];
  createdAt: string;
  expiresAt: string | null;
  /** The key is refused from this instant on. It is in the future during a grace period. */
  revokedAt: string | null;
  /** Accurate to about a minute. */
  lastUsedAt: string | null;
}

export function toKey(row: PlatformKeyRow): Key {
  return {
    keyId: row.id,
    productId: row.productId,
    name: row.name,
    prefix: row.prefix,
    scopes: row.scopes,
    createdAt: toInstant(row.createdAt),
    expiresAt: toInstant(row.expiresAt),
    revokedAt: toInstant(row.revokedAt),
    lastUsedAt: toInstant(row.lastUsedAt),
  };
}
