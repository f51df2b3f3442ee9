import { setImmediate } from "node:timers/promises";
import { drizzle, type PostgresJsDatabase, type PostgresJsQueryResultHKT } from "drizzle-orm/postgres-js";
import type { PgDatabase } from "drizzle-orm/pg-core";
import postgres from "postgres";
import * as schema from "./schema.ts";

/** A pool or a transaction. Every statement function accepts both. */
export type Db = PgDatabase<PostgresJsQueryResultHKT, typeof schema>;
/**
 * postgres.js for hand-written SQL. Drizzle has changed the parsers of this client: timestamps and dates are text, and
 * `sql.json()` throws. Begin transactions through `db`.
 */
export type RawSql = postgres.Sql;

export interface DatabaseOptions {
  url: string;
  /** `ORCH_DB_POOL`. The process opens at most `poolSize` + 4 connections. */
  poolSize: number;
  applicationName: string;
}

export interface Database extends AsyncDisposable {
  readonly db: PostgresJsDatabase<typeof schema>;
  /** Shares its connections with the queries of `db`. */
  readonly raw: RawSql;
  /**
   * One connection for the heartbeat alone, without transactions. Nothing else may use it: a heartbeat that waits behind
   * other statements loses the replica's lease.
   */
  readonly heartbeat: Db;
  close(): Promise<void>;
}

// Slow queries must not delay commits of the turn log. A small pool therefore gets spare connections.
const EXTRA_QUERY_CONNECTIONS = 3;

/**
 * Opens one client for queries, one for transactions and one for heartbeats. Connections are made on first use. The
 * caller closes the returned database.
 *
 * Queries and transactions cannot share a client, because of two defects of postgres.js:
 * - With its default pipeline, a quick query waits behind a slow one while other connections are idle. Queries
 *   therefore have `max_pipeline: 0`.
 * - With a bounded pipeline, postgres.js may send a `begin` behind the query of a busy connection. It then refuses the
 *   transaction, and the connection stays inside it: later writes on this connection are acknowledged but never committed.
 */
export function openDatabase(options: DatabaseOptions): Database {
  const transactionConnections = Math.max(1, Math.ceil(options.poolSize / 2));
  const transactions = openClient(options, { max: transactionConnections });
  const queries = openClient(options, {
    max: options.poolSize - transactionConnections + EXTRA_QUERY_CONNECTIONS,
    ...UNPIPELINED,
  });
  const heartbeat = openClient(options, { max: 1, ...UNPIPELINED });
  // Drizzle sets the parsers of a client. Nothing else of this call is used.
  drizzle(transactions, { schema });
  const begin: Begin = async (work) => beginGuarded(transactions, work);
  const raw = Object.assign(queries, { begin }) as RawSql;
  const close = async () => {
    await Promise.all([queries, transactions, heartbeat].map((client) => client.end({ timeout: 5 })));
  };
  const dbs = { db: drizzle(raw, { schema }), heartbeat: drizzle(heartbeat, { schema }) };
  return { ...dbs, raw, close, [Symbol.asyncDispose]: close };
}

type Begin = <T>(work: (sql: postgres.TransactionSql) => Promise<T>) => Promise<unknown>;

/**
 * Runs a transaction whose connection may break. After a break, postgres.js still sends the rollback. On a closed socket
 * that throws an error that no caller can catch. Otherwise the rollback hits the next transaction on that connection.
 * If the transaction has already failed, this function therefore gives postgres.js a promise that never ends.
 */
async function beginGuarded<T>(
  transactions: postgres.Sql,
  work: (sql: postgres.TransactionSql) => Promise<T>,
): Promise<unknown> {
  let hasEnded = false;
  try {
    return await transactions.begin(async (sql) => {
      try {
        return await work(sql);
      } catch (error) {
        // postgres.js reports a broken connection no later than the next iteration of the event loop.
        await setImmediate();
        return hasEnded ? new Promise<never>(() => undefined) : Promise.reject(error);
      }
    });
  } finally {
    hasEnded = true;
  }
}

// Not in the types of postgres.js.
const UNPIPELINED = { max_pipeline: 0 };

function openClient(options: DatabaseOptions, pool: { max: number; max_pipeline?: number }): postgres.Sql {
  const settings = {
    ...pool,
    connect_timeout: 10,
    onnotice: () => {},
    // By default, postgres.js waits up to 20 s before it reconnects. All queries wait too.
    backoff: () => 0.2 + Math.random() * 0.2,
    connection: {
      application_name: options.applicationName,
      TimeZone: "UTC",
      statement_timeout: 30_000,
      lock_timeout: 10_000,
      idle_in_transaction_session_timeout: 30_000,
    },
  };
  return postgres(options.url, settings);
}
