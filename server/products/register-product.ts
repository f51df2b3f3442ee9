import { randomUUIDv7 } from "node:crypto";
import { findViolatedConstraint } from "../../db/postgres-error.ts";
import { insertProduct, NO_COUNTS, PRODUCT_SLUG_KEY } from "../../db/products.ts";
import { NO_RECORD, type IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import { insertIssuedKey } from "../keys/issue-platform-key.ts";
import type { KeyIssuer } from "../keys/issued-key.ts";
import { assertPinned, type ProductPolicy } from "./product-policy.ts";
import { toProductMac } from "./product-mac.ts";
import { toProduct, type Product, type ProductViewContext } from "./product-view.ts";

export interface RegisterProductInput {
  slug: string;
  name: string;
  policy: ProductPolicy;
  idempotency: IdempotencyRecord;
}

/**
 * Makes a product and its first platform key, whose plaintext leaves in this reply only. Throws PRODUCT_SLUG_EXISTS
 * and IMAGE_NOT_PINNED.
 */
export async function registerProduct(
  ctx: Pick<BaseContext, "db" | "config"> & KeyIssuer & ProductViewContext & CallContext,
  { slug, name, policy, idempotency }: RegisterProductInput,
): Promise<{ product: Product; apiKey: string }> {
  assertPinned(ctx, policy);
  try {
    return await ctx.db.transaction(async (tx) => {
      const given = { id: randomUUIDv7(), slug, name, policy };
      const mac = toProductMac(ctx.keyring, { ...given, deletedAt: null });
      const row = await insertProduct(tx, { ...given, mac });
      // The platform's audit chain is locked last, because every other registration waits for that lock.
      const key = { productId: row.id, name: "default", idempotency: NO_RECORD };
      const { apiKey } = await insertIssuedKey(ctx, tx, key);
      const reply = { product: toProduct(ctx, { ...row, ...NO_COUNTS }), apiKey };
      await idempotency.complete(tx, reply);
      await appendAudit(tx, {
        scope: "platform",
        actor: ctx.actor,
        action: "product.registered",
        requestId: ctx.requestId,
        metadata: { productId: row.id, slug, name, policy },
      });
      return reply;
    });
  } catch (error) {
    if (findViolatedConstraint(error) !== PRODUCT_SLUG_KEY) throw error;
    const message = `another product has the slug "${slug}": choose another slug`;
    throw new DomainError("PRODUCT_SLUG_EXISTS", message);
  }
}
