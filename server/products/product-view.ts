import { z } from "zod";
import type { ProductRowCounted } from "../../db/products.ts";
import type { OpenStreams } from "../admission/open-streams.ts";
import { DomainError } from "../errors.ts";
import { instantText, instantTextOrNull } from "../time/instant-text.ts";
import { toInstant } from "../time/instant.ts";
import { ProductPolicy, toPolicy } from "./product-policy.ts";

const ProductUsage = z
  .object({
    liveTurns: z.int().describe("How many of its turns are live, at all replicas. See `maxLiveTurns`."),
    openStreams: z
      .int()
      .describe("How many streams of its turns are open at the replica that answers. See `maxOpenStreams`."),
    turnLogBytes: z
      .int()
      .describe("How many bytes of events its turns have logged in this hour. See `turnLogBytesPerHour`."),
  })
  .meta({ id: "ProductUsage", description: "What a product uses at a moment." });

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
    // Replies that an earlier version stored have no usage.
    usage: ProductUsage.default({ liveTurns: 0, openStreams: 0, turnLogBytes: 0 }).describe(
      "How much the product has at the moment of what its policy limits.",
    ),
    createdAt: instantText("When the product was registered."),
    deletedAt: instantTextOrNull("When the product was removed. null: it is not removed."),
  })
  .meta({ id: "Product", description: "A tenant: an internal service that owns users." });
export type Product = z.infer<typeof Product>;

export interface ProductViewContext {
  openStreams: Pick<OpenStreams, "countOf">;
}

export function toProduct({ openStreams }: ProductViewContext, row: ProductRowCounted): Product {
  const { liveTurns, turnLogBytes } = row;
  return {
    productId: row.id,
    slug: row.slug,
    name: row.name,
    policy: toPolicy(row.policy),
    engineCount: row.engineCount,
    usage: { liveTurns, openStreams: openStreams.countOf(row.id), turnLogBytes },
    createdAt: toInstant(row.createdAt),
    deletedAt: toInstant(row.deletedAt),
  };
}

export function productNotFound(): DomainError {
  return new DomainError("PRODUCT_NOT_FOUND", "there is no such product");
}
