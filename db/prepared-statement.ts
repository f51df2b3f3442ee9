import type { SQL } from "drizzle-orm";
import { PgDialect } from "drizzle-orm/pg-core";
import type { Db } from "./client.ts";

export type Statement<Values extends Record<string, unknown>, Row> = (
  db: Db,
  values: Values,
) => Promise<Row[]>;

/**
 * A hand-written statement for hot paths, in a transaction or on the pool. Its text is built once, and Postgres
 * parses it once per connection: the same text is the same prepared statement. Values fill `sql.placeholder(name)`.
 *
 * Rows come out by column alias as postgres.js parses them: bigint and timestamps are text.
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

/** A query of Drizzle's that is built once for each pool, and not anew for each call. */
export function preparedPerPool<Prepared>(prepare: (db: Db) => Prepared): (db: Db) => Prepared {
  const preparedByDb = new WeakMap<Db, { prepared: Prepared }>();
  return (db) => {
    const known = preparedByDb.get(db) ?? { prepared: prepare(db) };
    preparedByDb.set(db, known);
    return known.prepared;
  };
}
