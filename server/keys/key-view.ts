import { z } from "zod";
import type { PlatformKeyRow } from "../../db/platform-keys.ts";
import { SCOPES } from "../../db/schema.ts";
import { toInstant } from "../time/instant.ts";

/** A key as lists show it, without the plaintext. Instants are ISO strings. */
export const Key = z.object({
  keyId: z.string(),
  /** null for an operator key. */
  productId: z.string().nullable(),
  name: z.string(),
  /** The first characters, by which people tell keys apart. */
  prefix: z.string(),
  scopes: z.array(z.enum(SCOPES)),
  createdAt: z.string(),
  expiresAt: z.string().nullable(),
  /** The key is refused from this instant on. It is in the future during a grace period. */
  revokedAt: z.string().nullable(),
  /** Accurate to about a minute. */
  lastUsedAt: z.string().nullable(),
});
export type Key = z.infer<typeof Key>;

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
