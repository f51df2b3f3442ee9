import { and, asc, eq, getTableColumns, gt, isNotNull, isNull, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { preparedPerPool } from "./prepared-statement.ts";
import { products } from "./schema.ts";

export type ProductRow = typeof products.$inferSelect;
export type NewProduct = Pick<ProductRow, "id" | "slug" | "name" | "policy"> &
  Partial<Pick<ProductRow, "mac">>;
/** A product, and how much it has of what its policy limits. */
export type ProductRowCounted = ProductRow & ProductCounts;
export interface ProductCounts {
  /** In any status. */
  engineCount: number;
  liveTurns: number;
  /** The bytes of turn events that were logged in this hour of the clock. */
  turnLogBytes: number;
}
export const NO_COUNTS: ProductCounts = { engineCount: 0, liveTurns: 0, turnLogBytes: 0 };

export const PRODUCT_SLUG_KEY = "products_slug_key";

const counted = {
  ...getTableColumns(products),
  // Inside a subquery Drizzle writes a bare "id", which would be the engine's. So the columns are written out here.
  engineCount: sql<number>`(select count(*)::int from engines where engines.product_id = products.id)`,
  liveTurns: sql<number>`(select count(*)::int from turns
    where turns.product_id = products.id and turns.status in ('starting', 'streaming'))`,
  turnLogBytes: sql<number>`coalesce((select bytes::float8 from stored_bytes
    where scope = products.id::text and kind = 'turn_log' and hour = date_trunc('hour', orch_now(), 'UTC')), 0)`,
};

/** Violates PRODUCT_SLUG_KEY if a live product has the slug. */
export async function insertProduct(tx: Db, product: NewProduct): Promise<ProductRow> {
  const [row] = await tx
    .insert(products)
    .values({ ...product, createdAt: sql`orch_now()` })
    .returning();
  if (row === undefined) throw new Error(`the insert of product ${product.id} returned no row`);
  return row;
}

/** The product, removed or not. */
export async function findProduct(db: Db, id: string): Promise<ProductRowCounted | undefined> {
  const [row] = await db.select(counted).from(products).where(eq(products.id, id));
  return row;
}

const findById = preparedPerPool((db) =>
  db
    .select()
    .from(products)
    .where(eq(products.id, sql.placeholder("id")))
    .prepare("find_product"),
);

/** The product, removed or not, without its counts. */
export async function findProductRow(db: Db, id: string): Promise<ProductRow | undefined> {
  const [row] = await findById(db).execute({ id });
  return row;
}

export async function findProductBySlug(db: Db, slug: string): Promise<ProductRow | undefined> {
  const [row] = await db
    .select()
    .from(products)
    .where(and(eq(products.slug, slug), isNull(products.deletedAt)));
  return row;
}

/** Locks a live product until the end of the transaction. undefined: absent or removed. */
export async function lockProduct(tx: Db, id: string): Promise<ProductRow | undefined> {
  const [row] = await tx
    .select()
    .from(products)
    .where(and(eq(products.id, id), isNull(products.deletedAt)))
    .for("update")
    .prepare("lock_product")
    .execute();
  return row;
}

/** Live products in order of creation: ids are UUIDs of version 7. */
export async function listProductRows(
  db: Db,
  page: { afterId?: string | undefined; limit: number },
): Promise<ProductRowCounted[]> {
  return db
    .select(counted)
    .from(products)
    .where(
      and(isNull(products.deletedAt), page.afterId === undefined ? undefined : gt(products.id, page.afterId)),
    )
    .orderBy(asc(products.id))
    .limit(page.limit);
}

/** The product has to be locked. */
export async function setProductPolicy(
  tx: Db,
  { id, policy, mac }: Pick<ProductRow, "id" | "policy" | "mac">,
): Promise<void> {
  await tx.update(products).set({ policy, mac }).where(eq(products.id, id));
}

/** The product has to be locked. Another product may take its slug after that. */
export async function markProductRemoved(tx: Db, { id, mac }: Pick<ProductRow, "id" | "mac">): Promise<void> {
  await tx
    .update(products)
    .set({ deletedAt: sql`orch_now()`, mac })
    .where(eq(products.id, id));
}

/** The ids of removed products that still have engines, because their removal was cut short. */
export async function listHalfRemovedProducts(db: Db, limit: number): Promise<string[]> {
  const rows = await db
    .select({ id: products.id })
    .from(products)
    .where(
      and(
        isNotNull(products.deletedAt),
        sql`exists (select from engines where engines.product_id = products.id)`,
      ),
    )
    .limit(limit);
  return rows.map(({ id }) => id);
}
