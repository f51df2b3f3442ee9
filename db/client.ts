import { setImmediate } from "node:timers/promises";
import { drizzle, type PostgresJsDatabase, type PostgresJsQueryResultHKT } from "drizzle-orm/postgres-js";
import type { PgDatabase } from "drizzle-orm/pg-core";
import postgres from "postgres";
import { isReadOnlyRefusal } from "./postgres-error.ts";
import { openRenewingClient, type OnParameter, type RenewingClient } from "./renewing-client.ts";
import { SESSION_SETTINGS } from "./session-settings.ts";

/** A pool or a transaction. Every statement function accepts both. */
export type Db = PgDatabase<PostgresJsQueryResultHKT>;
/**
 * postgres.js for hand-written SQL. Drizzle has changed the parsers of this client: timestamps and dates are text, and
 * `sql.json()` throws. Begin transactions through `db`.
 */
export type RawSql = postgres.Sql;

export interface DatabaseOptions {
  url: string;
  /** `ORCH_DB_POOL`. The process opens at most `poolSize` + 4 connections, and twice as many while it renews them. */
  poolSize: number;
  applicationName: string;
}

export interface Database extends AsyncDisposable {
  readonly db: PostgresJsDatabase;
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
  const transactions = openRenewing(options, { max: transactionConnections });
  const queries = openRenewing(options, {
    max: options.poolSize - transactionConnections + EXTRA_QUERY_CONNECTIONS,
    ...UNPIPELINED,
  });
  const heartbeat = openRenewing(options, { max: 1, ...UNPIPELINED });
  const clients = [queries, transactions, heartbeat];
  const begin: Begin = async (work) => {
    try {
      return await beginGuarded(transactions.sql, work);
    } catch (error) {
      // The transaction itself may have become read-only; the server does not report that.
      if (isReadOnlyRefusal(error)) for (const client of clients) client.renew();
      throw error;
    }
  };
  const raw = withBegin(queries.sql, begin);
  const close = async () => {
    await Promise.all(clients.map(async (client) => client.close()));
  };
  const dbs = { db: drizzle(raw), heartbeat: drizzle(heartbeat.sql) };
  return { ...dbs, raw, close, [Symbol.asyncDispose]: close };
}

function openRenewing(options: DatabaseOptions, pool: PoolOptions): RenewingClient {
  return openRenewingClient((onParameter) => {
    const client = openClient(options, { ...pool, onparameter: onParameter });
    // Drizzle sets the parsers of a client. Nothing else of this call is used.
    drizzle(client);
    return client;
  });
}

function withBegin(client: postgres.Sql, begin: Begin): RawSql {
  return new Proxy(client, {
    get: (target, name) => (name === "begin" ? begin : (Reflect.get(target, name) as unknown)),
  });
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

export interface PoolOptions {
  max: number;
  max_pipeline?: number;
  onparameter?: OnParameter;
}

/** A postgres.js client whose sessions have the settings that this service needs. The caller ends it. */
export function openClient(
  options: Pick<DatabaseOptions, "url" | "applicationName">,
  pool: PoolOptions,
): postgres.Sql {
  const settings = {
    ...pool,
    connect_timeout: 10,
    onnotice: () => {},
    // By default, postgres.js waits up to 20 s before it reconnects. All queries wait too.
    backoff: () => 0.2 + Math.random() * 0.2,
    connection: {
      application_name: options.applicationName,
      ...SESSION_SETTINGS,
      statement_timeout: 30_000,
      lock_timeout: 10_000,
      idle_in_transaction_session_timeout: 30_000,
    },
  };
  return postgres(options.url, settings);
}
