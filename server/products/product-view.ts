import { z } from "zod";
import type { ProductRowCounted } from "../../db/products.ts";
import { DomainError } from "../errors.ts";
import { toInstant } from "../time/instant.ts";
import { ProductPolicy } from "./product-policy.ts";

/** A product in replies. Instants are ISO strings. */
export const Product = z.object({
  productId: z.string(),
  slug: z.string(),
  name: z.string(),
  policy: ProductPolicy,
  /** Engines in any status, also those that are being provisioned or destroyed. */
  engineCount: z.number(),
  createdAt: z.string(),
  /** null: the product is live. */
  deletedAt: z.string().nullable(),
});
export type Product = z.infer<typeof Product>;

export function toProduct(row: ProductRowCounted): Product {
  return {
    productId: row.id,
    slug: row.slug,
    name: row.name,
    // The policy was parsed before it was written.
    policy: row.policy as ProductPolicy,
    engineCount: row.engineCount,
    createdAt: toInstant(row.createdAt),
    deletedAt: toInstant(row.deletedAt),
  };
}

export function productNotFound(): DomainError {
  return new DomainError("PRODUCT_NOT_FOUND", "there is no such product");
}
