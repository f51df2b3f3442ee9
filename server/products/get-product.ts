import { countEngines } from "../../db/engines.ts";
import { findProduct, findProductBySlug } from "../../db/products.ts";
import { parseId } from "../page-cursor.ts";
import type { BaseContext } from "../context.ts";
import { productNotFound, toProduct, type Product } from "./product-view.ts";

/** Finds removed products too, because their audit log stays. Throws PRODUCT_NOT_FOUND. */
export async function getProduct(
  ctx: Pick<BaseContext, "db">,
  input: { productId: string },
): Promise<Product> {
  const row = await findProduct(ctx.db, input.productId);
  if (row === undefined) throw productNotFound();
  return toProduct(row);
}

/** The live product with that slug. Throws PRODUCT_NOT_FOUND. */
export async function getProductBySlug(ctx: Pick<BaseContext, "db">, slug: string): Promise<Product> {
  const row = await findProductBySlug(ctx.db, slug);
  if (row === undefined) throw productNotFound();
  return toProduct({ ...row, engineCount: await countEngines(ctx.db, row.id) });
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
