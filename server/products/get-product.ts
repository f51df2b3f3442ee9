import { findProduct, findProductBySlug, findProductRow } from "../../db/products.ts";
import { parseId } from "../page-cursor.ts";
import type { BaseContext } from "../context.ts";
import type { Keyring } from "../keys/keyring.ts";
import { requireAuthenticProduct } from "./product-mac.ts";
import { toPolicy, type ProductPolicy } from "./product-policy.ts";
import { productNotFound, toProduct, type Product, type ProductViewContext } from "./product-view.ts";

/** Finds removed products too, because their audit log stays. Throws PRODUCT_NOT_FOUND. */
export async function getProduct(
  ctx: Pick<BaseContext, "db"> & ProductViewContext,
  input: { productId: string },
): Promise<Product> {
  const row = await findProduct(ctx.db, input.productId);
  if (row === undefined) throw productNotFound();
  return toProduct(ctx, row);
}

/** The policy of a product, removed or not, at this moment. Throws PRODUCT_NOT_FOUND and ROW_TAMPERED. */
export async function getProductPolicy(
  ctx: Pick<BaseContext, "db"> & { keyring: Keyring },
  input: { productId: string },
): Promise<ProductPolicy> {
  const row = await findProductRow(ctx.db, input.productId);
  if (row === undefined) throw productNotFound();
  requireAuthenticProduct(ctx.keyring, row);
  return toPolicy(row.policy);
}

/** The live product with that slug. Throws PRODUCT_NOT_FOUND and ROW_TAMPERED. */
export async function getProductBySlug(
  ctx: Pick<BaseContext, "db"> & { keyring: Keyring },
  slug: string,
): Promise<{ productId: string; policy: ProductPolicy }> {
  const row = await findProductBySlug(ctx.db, slug);
  if (row === undefined) throw productNotFound();
  requireAuthenticProduct(ctx.keyring, row);
  return { productId: row.id, policy: toPolicy(row.policy) };
}

/**
 * The id of the product whose audit log is asked for: the live product with that slug, else the product with that id,
 * removed or not. Throws PRODUCT_NOT_FOUND.
 */
export async function getAuditedProductId(ctx: Pick<BaseContext, "db">, slugOrId: string): Promise<string> {
  const id = parseId(slugOrId);
  const live = await findProductBySlug(ctx.db, slugOrId);
  const product = live ?? (id === undefined ? undefined : await findProduct(ctx.db, id));
  if (product === undefined) throw productNotFound();
  return product.id;
}
