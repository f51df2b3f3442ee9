import { and, asc, eq, gt, sql, type SQL } from "drizzle-orm";
import { APPEND_AUDIT, AUDIT_COLUMNS, type AuditValues } from "./audit-log.ts";
import type { Db } from "./client.ts";
import { preparedPerPool, toStatement } from "./prepared-statement.ts";
import { toStateColumns, type KeyStateRow } from "./key-rows.ts";
import type { ProductRow } from "./products.ts";
import { platformKeys, products } from "./schema.ts";

export type PlatformKeyRow = typeof platformKeys.$inferSelect;
export type Scope = PlatformKeyRow["scopes"][number];
export type NewPlatformKey = Pick<
  PlatformKeyRow,
  "id" | "productId" | "name" | "prefix" | "hash" | "scopes" | "expiresAt" | "mac"
>;

export interface PlatformKeyState extends KeyStateRow, Pick<PlatformKeyRow, "productId" | "scopes"> {
  kind: "platform";
  product: Pick<ProductRow, "id" | "slug" | "policy" | "deletedAt" | "mac">;
}

const findByHash = preparedPerPool((db) =>
  db
    .select({
      ...toStateColumns(platformKeys),
      kind: sql<"platform">`'platform'`.as("kind"),
      productId: platformKeys.productId,
      scopes: platformKeys.scopes,
      product: {
        id: products.id,
        slug: products.slug,
        policy: products.policy,
        deletedAt: products.deletedAt,
        mac: products.mac,
      },
    })
    .from(platformKeys)
    .innerJoin(products, eq(products.id, platformKeys.productId))
    .where(eq(platformKeys.hash, sql.placeholder("hash")))
    .prepare("find_platform_key"),
);

/** A prepared query, because every call with a platform key runs it. */
export async function findPlatformKeyState(db: Db, hash: string): Promise<PlatformKeyState | undefined> {
  const [row] = await findByHash(db).execute({ hash });
  return row;
}

// Locks the product row until the end of the transaction. The lock of the audit head comes last, against deadlocks.
const toInsert = (columns: SQL, seq: SQL) =>
  sql`with held as (
        select id from products where id = ${sql.placeholder("productId")} and deleted_at is null for share
      ), wanted as materialized (
        select * from json_to_recordset(${sql.placeholder("rows")}::json) as row(id uuid, name text, prefix text,
          hash text, scopes text[], "expiresAt" timestamptz, mac text ${columns})
      ), issued as (
        insert into platform_keys (id, product_id, name, prefix, hash, scopes, created_at, expires_at, mac)
        select wanted.id, held.id, name, prefix, hash, scopes, orch_now(), "expiresAt", mac from held, wanted
        where coalesce("expiresAt" > orch_now(), true)
        returning id, created_at
      ), recorded as (
        select id, created_at, ${seq} as seq from issued join wanted using (id)
      )
      select recorded.id, recorded.created_at as "createdAt", seq from held left join recorded on true`;

/** One row per inserted key; for a live product without any inserted key, one row of nulls. */
type InsertedRow = { id: string; createdAt: string } | { id: null; createdAt: null };
type InsertValues = { productId: string; rows: string };

const insertKeys = toStatement<InsertValues, InsertedRow>("insert_platform_keys", toInsert(sql``, sql`0`));
const insertAuditedKeys = toStatement<InsertValues, InsertedRow>(
  "insert_audited_platform_keys",
  toInsert(sql`, ${AUDIT_COLUMNS}`, APPEND_AUDIT),
);

export type InsertedPlatformKey =
  { inserted: true; row: PlatformKeyRow } | { inserted: false; why: "no_product" | "expired" };

/** Inserts a key of a live product. The product can neither change nor be removed until the transaction ends. */
export async function insertPlatformKey(tx: Db, key: NewPlatformKey): Promise<InsertedPlatformKey> {
  return toInserted(key, await insertKeys(tx, { productId: key.productId, rows: JSON.stringify([key]) }));
}

/**
 * Inserts keys of one product with their audit rows in one statement, which can be the whole transaction. Keys that
 * have expired are left out.
 */
export async function insertAuditedPlatformKeys(
  db: Db,
  changes: readonly { key: NewPlatformKey; audit: AuditValues }[],
): Promise<InsertedPlatformKey[]> {
  const productId = changes[0]?.key.productId;
  if (productId === undefined) return [];
  const rows = JSON.stringify(changes.map(({ key, audit }) => ({ ...key, ...audit })));
  const found = await insertAuditedKeys(db, { productId, rows });
  return changes.map(({ key }) => toInserted(key, found));
}

function toInserted(key: NewPlatformKey, found: readonly InsertedRow[]): InsertedPlatformKey {
  if (found.length === 0) return { inserted: false, why: "no_product" };
  const createdAt = found.find(({ id }) => id === key.id)?.createdAt;
  if (typeof createdAt !== "string") return { inserted: false, why: "expired" };
  return { inserted: true, row: { ...key, createdAt, revokedAt: null, lastUsedAt: null } };
}

/** In order of issue, because ids are UUIDs of version 7. */
export async function listPlatformKeyRows(
  db: Db,
  page: { productId: string; afterId?: string | undefined; limit: number },
): Promise<PlatformKeyRow[]> {
  return db
    .select()
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
