import { and, asc, eq, isNotNull, not, or, sql, type SQL } from "drizzle-orm";
import type { PgColumn, PgTable } from "drizzle-orm/pg-core";
import type { Db } from "./client.ts";

/** Which columns of a table are made with a master key, and which columns name a row. */
export interface SealedColumns {
  table: PgTable;
  /** The primary key. Tables are walked in its order. */
  key: readonly PgColumn[];
  /** Texts that a keyring has sealed: `v1.<keyId>.…`. */
  sealed: readonly PgColumn[];
  /** MACs of rows: `<keyId>:…`. */
  macs: readonly PgColumn[];
}

export type SealedRow = Record<string, unknown>;

/** Rows with a value that was made with another key than this one. NULL is no value. */
function isOutdated({ sealed, macs }: SealedColumns, keyId: string): SQL | undefined {
  return or(
    ...sealed.map((column) => and(isNotNull(column), sql`split_part(${column}, '.', 2) <> ${keyId}`)),
    ...macs.map((column) => and(isNotNull(column), sql`split_part(${column}, ':', 1) <> ${keyId}`)),
  );
}

const isWithoutMac = ({ macs: [mac] }: SealedColumns) =>
  mac === undefined ? sql`false` : sql`${mac} is null`;

export type RowFilter = { outdatedFor: string } | { id: string } | "without_mac" | "with_mac";

function toCondition(columns: SealedColumns, filter: RowFilter): SQL | undefined {
  if (filter === "without_mac") return isWithoutMac(columns);
  if (filter === "with_mac") return not(isWithoutMac(columns));
  if ("outdatedFor" in filter) return isOutdated(columns, filter.outdatedFor);
  const [key] = columns.key;
  return key && eq(key, filter.id);
}

const toList = (parts: readonly SQL[]) => sql.join([...parts], sql`, `);

/**
 * Locks the next rows in order of the primary key. Rows that another transaction has locked are left out, so that
 * nothing waits and no two callers deadlock.
 */
export async function lockSealedRows(
  tx: Db,
  columns: SealedColumns,
  page: { filter: RowFilter; after: SealedRow | undefined; limit: number },
): Promise<SealedRow[]> {
  const { after } = page;
  const position =
    after === undefined
      ? undefined
      : sql`(${toList(columns.key.map((column) => sql`${column}`))}) > (${toList(
          columns.key.map((column) => sql`${sql.param(after[toName(columns, column)], column)}`),
        )})`;
  const rows = await tx
    .select()
    .from(columns.table)
    .where(and(toCondition(columns, page.filter), position))
    .orderBy(...columns.key.map((column) => asc(column)))
    .limit(page.limit)
    .for("update", { skipLocked: true });
  return rows;
}

/** Writes columns of a locked row. */
export async function writeSealedRow(
  tx: Db,
  columns: SealedColumns,
  { row, patch }: { row: SealedRow; patch: SealedRow },
): Promise<void> {
  const isRow = and(...columns.key.map((column) => eq(column, row[toName(columns, column)])));
  await tx.update(columns.table).set(patch).where(isRow);
}

export async function countSealedRows(db: Db, columns: SealedColumns, filter: RowFilter): Promise<number> {
  const [row] = await db
    .select({ count: sql<number>`count(*)::int` })
    .from(columns.table)
    .where(toCondition(columns, filter));
  return row?.count ?? 0;
}

/** True if the table has any row. */
export async function hasRows(db: Db, { table }: SealedColumns): Promise<boolean> {
  const rows = await db
    .select({ one: sql`1` })
    .from(table)
    .limit(1);
  return rows.length > 0;
}

/** The name of the column in a selected row. */
function toName({ table }: SealedColumns, column: PgColumn): string {
  const found = Object.entries(table).find(([, known]) => known === column);
  if (found === undefined) throw new Error(`the column ${column.name} is not of the table`);
  return found[0];
}
