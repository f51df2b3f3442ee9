import { z } from "zod";
import type { ProductRowCounted } from "../../db/products.ts";
import { DomainError } from "../errors.ts";
import { instantText, instantTextOrNull } from "../time/instant-text.ts";
import { toInstant } from "../time/instant.ts";
import { ProductPolicy } from "./product-policy.ts";

/** A product in replies. Instants are ISO strings. */
export const Product = z
  .object({
    productId: z.string().meta({ format: "uuid" }).describe("The product's id."),
    slug: z.string().describe("The short name by which operators name the product in calls."),
    name: z.string().describe("The name of the product for people."),
    policy: ProductPolicy.describe("The limits of the product and its engines."),
    engineCount: z
      .int()
      .describe("How many engines the product has, in any status: also those that are being destroyed."),
    createdAt: instantText("When the product was registered."),
    deletedAt: instantTextOrNull("When the product was removed. null: it is not removed."),
  })
  .meta({ id: "Product", description: "A tenant: an internal service that owns users." });
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
