import { and, asc, eq, gt, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { toStateColumns, type KeyStateRow } from "./key-rows.ts";
import { preparedPerPool } from "./prepared-statement.ts";
import { operators } from "./schema.ts";

export type OperatorRow = typeof operators.$inferSelect;
export type NewOperator = Pick<OperatorRow, "id" | "name" | "prefix" | "hash" | "expiresAt" | "mac">;

export interface OperatorState extends KeyStateRow {
  kind: "operator";
}

export const OPERATOR_NAME_KEY = "operators_name_key";

const findByHash = preparedPerPool((db) =>
  db
    .select({ ...toStateColumns(operators), kind: sql<"operator">`'operator'`.as("kind") })
    .from(operators)
    .where(eq(operators.hash, sql.placeholder("hash")))
    .prepare("find_operator"),
);

/** A prepared query, because every call with an operator key runs it. */
export async function findOperatorState(db: Db, hash: string): Promise<OperatorState | undefined> {
  const [row] = await findByHash(db).execute({ hash });
  return row;
}

/**
 * undefined: the expiry has passed by the database's clock. Violates OPERATOR_NAME_KEY if a key that is not revoked has
 * the name.
 */
export async function insertOperator(tx: Db, operator: NewOperator): Promise<OperatorRow | undefined> {
  const { id, name, prefix, hash, expiresAt, mac } = operator;
  const rows = await tx.execute<{ createdAt: string }>(
    sql`insert into operators (id, name, prefix, hash, created_at, expires_at, mac)
        select ${id}, ${name}, ${prefix}, ${hash}, orch_now(), ${expiresAt}::timestamptz, ${mac}
        where coalesce(${expiresAt}::timestamptz > orch_now(), true)
        returning created_at::text as "createdAt"`,
  );
  const createdAt = rows[0]?.createdAt;
  return createdAt === undefined ? undefined : { ...operator, createdAt, revokedAt: null, lastUsedAt: null };
}

/** In order of issue, because ids are UUIDs of version 7. */
export async function listOperatorRows(
  db: Db,
  page: { afterId?: string | undefined; limit: number },
): Promise<OperatorRow[]> {
  return db
    .select()
    .from(operators)
    .where(and(page.afterId === undefined ? undefined : gt(operators.id, page.afterId)))
    .orderBy(asc(operators.id))
    .limit(page.limit);
}
