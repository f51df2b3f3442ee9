import { listPlatformKeyRows } from "../../db/platform-keys.ts";
import { findProduct } from "../../db/products.ts";
import { fromCursor, parseId, toPage, type Page } from "../page-cursor.ts";
import type { BaseContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import { toKey, type Key } from "./key-view.ts";

export interface ListPlatformKeysInput {
  productId: string;
  cursor?: string | undefined;
  limit: number;
}

/** Lists all keys of the product in order of issue, revoked and expired keys too. Throws PRODUCT_NOT_FOUND. */
export async function listPlatformKeys(
  ctx: Pick<BaseContext, "db">,
  input: ListPlatformKeysInput,
): Promise<Page<Key>> {
  const afterId = fromCursor(input.cursor, parseId);
  if ((await findProduct(ctx.db, input.productId)) === undefined) {
    throw new DomainError("PRODUCT_NOT_FOUND", `no product has the id ${input.productId}`);
  }
  const page = { productId: input.productId, afterId, limit: input.limit + 1 };
  const rows = await listPlatformKeyRows(ctx.db, page);
  return toPage(rows, input.limit, { item: toKey, position: (row) => row.id });
}
