import type { SQL } from "drizzle-orm";
import { PgDialect } from "drizzle-orm/pg-core";
import type { Db } from "./client.ts";

export type Statement<Values extends Record<string, unknown>, Row> = (
  db: Db,
  values: Values,
) => Promise<Row[]>;

/**
 * Makes a hand-written statement for hot paths, in a transaction or on a pool. Its text is built once. Postgres parses
 * it once per connection, because the same text is the same prepared statement. Values fill `sql.placeholder(name)`.
 *
 * Rows have the column aliases as names, and values as postgres.js parses them: bigint and timestamps are text.
 */
export function toStatement<Values extends Record<string, unknown>, Row>(
  name: string,
  query: SQL,
): Statement<Values, Row> {
  const built = new PgDialect().sqlToQuery(query);
  return async (db, values) => {
    const prepared = db._.session.prepareQuery<{ execute: Row[]; all: unknown; values: unknown }>(
      built,
      undefined,
      name,
      false,
    );
    return prepared.execute(values);
  };
}

/**
 * Builds a Drizzle query once per pool instead of once per call. Drizzle binds a prepared query to its pool, and
 * statements get only `db`, so the prepared queries are kept in a map by pool. They live as long as the pool.
 */
export function preparedPerPool<Prepared>(prepare: (db: Db) => Prepared): (db: Db) => Prepared {
  const preparedByDb = new WeakMap<Db, { prepared: Prepared }>();
  return (db) => {
    const known = preparedByDb.get(db) ?? { prepared: prepare(db) };
    preparedByDb.set(db, known);
    return known.prepared;
  };
}
