import { z } from "zod";
import { SCOPES } from "../../../db/schema.ts";
import { ProductPolicy } from "../../products/product-policy.ts";

export const ProductSchema = z.object({
  productId: z.string(),
  slug: z.string(),
  name: z.string(),
  policy: ProductPolicy,
  engineCount: z.number(),
  createdAt: z.string(),
  deletedAt: z.string().nullable(),
});

/** A key, without the plaintext. */
export const KeySchema = z.object({
  keyId: z.string(),
  productId: z.string().nullable(),
  name: z.string(),
  prefix: z.string(),
  scopes: z.array(z.enum(SCOPES)),
  createdAt: z.string(),
  expiresAt: z.string().nullable(),
  revokedAt: z.string().nullable(),
  lastUsedAt: z.string().nullable(),
});
