import { listProductRows } from "../../db/products.ts";
import { fromCursor, parseId, toPage, type Page } from "../page-cursor.ts";
import type { BaseContext } from "../context.ts";
import { toProduct, type Product, type ProductViewContext } from "./product-view.ts";

/** Live products in order of creation. */
export async function listProducts(
  ctx: Pick<BaseContext, "db"> & ProductViewContext,
  input: { cursor?: string | undefined; limit: number },
): Promise<Page<Product>> {
  const afterId = fromCursor(input.cursor, parseId);
  const rows = await listProductRows(ctx.db, { afterId, limit: input.limit + 1 });
  return toPage(rows, input.limit, { item: (row) => toProduct(ctx, row), position: (row) => row.id });
}
