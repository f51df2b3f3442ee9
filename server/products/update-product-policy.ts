import { findProduct, lockProduct, setProductPolicy } from "../../db/products.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import type { KeyStates } from "../keys/key-states.ts";
import type { Keyring } from "../keys/keyring.ts";
import { requireAuthenticProduct, toProductMac } from "./product-mac.ts";
import { assertPinned, type ProductPolicy } from "./product-policy.ts";
import { productNotFound, toProduct, type Product, type ProductViewContext } from "./product-view.ts";

export interface UpdateProductPolicyInput {
  productId: string;
  /** Replaces the whole policy: whatever it leaves out is unlimited or default from now on. */
  policy: ProductPolicy;
  idempotency: IdempotencyRecord;
}

/**
 * Existing engines stay as they are. `overBy` is the number of engines above the new limit.
 * Throws PRODUCT_NOT_FOUND, IMAGE_NOT_PINNED and ROW_TAMPERED.
 */
export async function updateProductPolicy(
  ctx: Pick<BaseContext, "db" | "config"> & { keyStates: KeyStates; keyring: Keyring } & ProductViewContext &
    CallContext,
  { productId, policy, idempotency }: UpdateProductPolicyInput,
): Promise<{ product: Product; overBy: number }> {
  assertPinned(ctx, policy);
  const updated = await ctx.db.transaction(async (tx) => {
    const before = await lockProduct(tx, productId);
    if (before === undefined) throw productNotFound();
    requireAuthenticProduct(ctx.keyring, before);
    await setProductPolicy(tx, {
      id: productId,
      policy,
      mac: toProductMac(ctx.keyring, { ...before, policy }),
    });
    // Counted with the product locked: no provision comes between the new limit and the count.
    const row = await findProduct(tx, productId);
    if (row === undefined) throw productNotFound();
    const { engineCount } = row;
    const overBy = Math.max(0, engineCount - (policy.maxEngines ?? engineCount));
    const reply = { product: toProduct(ctx, row), overBy };
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
  // The states of keys have the policy.
  ctx.keyStates.clear();
  return updated;
}
