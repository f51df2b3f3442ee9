import type { PlatformKeyRow, Scope } from "../../db/platform-keys.ts";
import { toInstant } from "../time/instant.ts";

/** A key as lists show it, without what would let anybody use it. Instants are ISO strings. */
export interface Key {
  keyId: string;
  /** null for an operator's. */
  productId: string | null;
  name: string;
  /** The first characters, to tell keys apart. */
  prefix: string;
  scopes: Scope[];
  createdAt: string;
  expiresAt: string | null;
  /** From then on it is refused; in the future while a grace runs. */
  revokedAt: string | null;
  /** Right to about a minute. */
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
