import type { ProductRowCounted } from "../../db/products.ts";
import { DomainError } from "../errors.ts";
import { toInstant } from "../time/instant.ts";
import type { ProductPolicy } from "./product-policy.ts";

/** A product as callers see it. Instants are ISO strings. */
export interface Product {
  productId: string;
  slug: string;
  name: string;
  policy: ProductPolicy;
  /** Engines in whatever status, those being provisioned or destroyed included. */
  engineCount: number;
  createdAt: string;
  /** Not null once it was removed. */
  deletedAt: string | null;
}

export function toProduct(row: ProductRowCounted): Product {
  return {
    productId: row.id,
    slug: row.slug,
    name: row.name,
    // Only written after it was parsed.
    policy: row.policy as ProductPolicy,
    engineCount: row.engineCount,
    createdAt: toInstant(row.createdAt),
    deletedAt: toInstant(row.deletedAt),
  };
}

export function productNotFound(): DomainError {
  return new DomainError("PRODUCT_NOT_FOUND", "there is no such product");
}
