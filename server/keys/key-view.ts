import { z } from "zod";
import type { OperatorRow } from "../../db/operators.ts";
import type { PlatformKeyRow } from "../../db/platform-keys.ts";
import { SCOPES } from "../../db/schema.ts";
import { instantText, instantTextOrNull } from "../time/instant-text.ts";
import { toInstant } from "../time/instant.ts";

/** A key as lists show it, without the plaintext. Instants are ISO strings. */
export const Key = z
  .object({
    keyId: z
      .string()
      .meta({ format: "uuid" })
      .describe("The id of the key, for `platformKeys.revoke` or `operators.revoke`."),
    productId: z
      .string()
      .meta({ format: "uuid" })
      .nullable()
      .describe("The product that the key acts for. null: an operator key."),
    name: z.string().describe("The key's name for people."),
    prefix: z.string().describe("The first characters of the key, by which people tell keys apart."),
    scopes: z
      .array(z.enum(SCOPES))
      .describe("What the key may do; empty for an operator key, which may do everything."),
    createdAt: instantText("When the key was issued."),
    expiresAt: instantTextOrNull("The key is refused from this instant on. null: it does not expire."),
    revokedAt: instantTextOrNull(
      "The key is refused from this instant on. It is in the future during a grace period. null: the key is not revoked.",
    ),
    lastUsedAt: instantTextOrNull("When the key was last used, to about a minute. null: never."),
  })
  .meta({ id: "Key", description: "A platform key or an operator key, without its plain text." });
export type Key = z.infer<typeof Key>;

export function toKey(row: Omit<PlatformKeyRow, "productId"> & { productId: string | null }): Key {
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

/** Operator keys have no product and no scopes: they may make every call. */
export function toOperatorKey(row: OperatorRow): Key {
  return toKey({ ...row, productId: null, scopes: [] });
}
