import { countEngines } from "../../db/engines.ts";
import { lockProduct, setProductPolicy } from "../../db/products.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { assertPinned, type ProductPolicy } from "./product-policy.ts";
import { productNotFound, toProduct, type Product } from "./product-view.ts";

export interface UpdateProductPolicyInput {
  productId: string;
  /** Replaces the whole policy: whatever it leaves out is unlimited or default from now on. */
  policy: ProductPolicy;
  idempotency: IdempotencyRecord;
}

/**
 * Existing engines stay as they are. `overBy` is the number of engines above the new limit.
 * Throws PRODUCT_NOT_FOUND and IMAGE_NOT_PINNED.
 */
export async function updateProductPolicy(
  ctx: Pick<BaseContext, "db" | "config"> & CallContext,
  { productId, policy, idempotency }: UpdateProductPolicyInput,
): Promise<{ product: Product; overBy: number }> {
  assertPinned(ctx, policy);
  return ctx.db.transaction(async (tx) => {
    const before = await lockProduct(tx, productId);
    if (before === undefined) throw productNotFound();
    const row = await setProductPolicy(tx, productId, policy);
    const engineCount = await countEngines(tx, productId);
    const overBy = Math.max(0, engineCount - (policy.maxEngines ?? engineCount));
    const reply = { product: toProduct({ ...row, engineCount }), overBy };
    await idempotency.complete(tx, reply);
    await appendAudit(tx, {
      scope: "platform",
      actor: ctx.actor,
      action: "product.policy_updated",
      requestId: ctx.requestId,
      metadata: { productId, slug: row.slug, before: before.policy, after: policy },
    });
    return reply;
  });
}
