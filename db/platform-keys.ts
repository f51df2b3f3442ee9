import { and, asc, eq, getTableColumns, gt, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { platformKeys, products, type SCOPES } from "./schema.ts";

export type Scope = (typeof SCOPES)[number];
export type PlatformKeyRow = Omit<typeof platformKeys.$inferSelect, "scopes"> & { scopes: Scope[] };
export type NewPlatformKey = Pick<
  PlatformKeyRow,
  "id" | "productId" | "name" | "prefix" | "hash" | "scopes" | "expiresAt"
>;

const columns = { ...getTableColumns(platformKeys), scopes: sql<Scope[]>`${platformKeys.scopes}` };
const isPast = (column: typeof platformKeys.expiresAt) =>
  sql<boolean>`coalesce(${column} <= orch_now(), false)`;

/** A key and what the database's clock says of it. */
export interface PlatformKeyState extends Pick<PlatformKeyRow, "id" | "productId" | "name" | "scopes"> {
  expired: boolean;
  revoked: boolean;
  productRemoved: boolean;
  /** Last written more than a minute ago. */
  usageStale: boolean;
}

const preparedFinds = new WeakMap<Db, ReturnType<typeof prepareFind>>();

function prepareFind(db: Db) {
  return db
    .select({
      id: platformKeys.id,
      productId: platformKeys.productId,
      name: platformKeys.name,
      scopes: columns.scopes,
      expired: isPast(platformKeys.expiresAt).as("expired"),
      revoked: isPast(platformKeys.revokedAt).as("revoked"),
      productRemoved: sql<boolean>`${products.deletedAt} is not null`.as("product_removed"),
      usageStale: sql<boolean>`${isUsageStale}`.as("usage_stale"),
    })
    .from(platformKeys)
    .innerJoin(products, eq(products.id, platformKeys.productId))
    .where(eq(platformKeys.hash, sql.placeholder("hash")))
    .prepare("find_platform_key");
}

const isUsageStale = sql`coalesce(${platformKeys.lastUsedAt} <= orch_now() - interval '1 minute', true)`;

/** Prepared on the pool: it is on every call's path. */
export async function findPlatformKeyState(db: Db, hash: string): Promise<PlatformKeyState | undefined> {
  let find = preparedFinds.get(db);
  if (find === undefined) {
    find = prepareFind(db);
    preparedFinds.set(db, find);
  }
  const [row] = await find.execute({ hash });
  return row;
}

/** Writes only what is stale, so that many replicas together write about once a minute. */
export async function recordKeyUsed(db: Db, id: string): Promise<void> {
  await db
    .update(platformKeys)
    .set({ lastUsedAt: sql`orch_now()` })
    .where(and(eq(platformKeys.id, id), isUsageStale));
}

export async function insertPlatformKey(
  tx: Db,
  key: NewPlatformKey,
): Promise<PlatformKeyRow & { expired: boolean }> {
  const [row] = await tx
    .insert(platformKeys)
    .values({ ...key, createdAt: sql`orch_now()` })
    .returning({ ...columns, expired: isPast(platformKeys.expiresAt) })
    .prepare("insert_platform_key")
    .execute();
  if (row === undefined) throw new Error("the key was not inserted");
  return row;
}

/** In order of issue: ids are version 7. */
export async function listPlatformKeyRows(
  db: Db,
  page: { productId: string; afterId?: string | undefined; limit: number },
): Promise<PlatformKeyRow[]> {
  return db
    .select(columns)
    .from(platformKeys)
    .where(
      and(
        eq(platformKeys.productId, page.productId),
        page.afterId === undefined ? undefined : gt(platformKeys.id, page.afterId),
      ),
    )
    .orderBy(asc(platformKeys.id))
    .limit(page.limit);
}

export async function lockPlatformKey(tx: Db, id: string): Promise<PlatformKeyRow | undefined> {
  const [row] = await tx.select(columns).from(platformKeys).where(eq(platformKeys.id, id)).for("update");
  return row;
}

/** Revokes after the grace, or keeps an earlier revocation: then there is no row. */
export async function setKeyRevoked(
  tx: Db,
  revocation: { id: string; graceSeconds: number },
): Promise<PlatformKeyRow | undefined> {
  const at = sql`orch_now() + make_interval(secs => ${revocation.graceSeconds}::float8)`;
  const [row] = await tx
    .update(platformKeys)
    .set({ revokedAt: at })
    .where(
      and(
        eq(platformKeys.id, revocation.id),
        sql`(${platformKeys.revokedAt} is null or ${platformKeys.revokedAt} > ${at})`,
      ),
    )
    .returning(columns);
  return row;
}
