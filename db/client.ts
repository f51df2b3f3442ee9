import { setImmediate } from "node:timers/promises";
import { drizzle, type PostgresJsDatabase, type PostgresJsQueryResultHKT } from "drizzle-orm/postgres-js";
import type { PgDatabase } from "drizzle-orm/pg-core";
import postgres from "postgres";
import * as schema from "./schema.ts";

/** The pool or a transaction: statements take either. */
export type Db = PgDatabase<PostgresJsQueryResultHKT, typeof schema>;
/** postgres.js as it is, for what Drizzle cannot say: LISTEN, locks, the turn log. */
export type RawSql = postgres.Sql;

export interface DatabaseOptions {
  url: string;
  /** Connections of the Drizzle pool, two at least; the raw client has up to four more. */
  poolSize: number;
  applicationName: string;
}

export interface Database extends AsyncDisposable {
  readonly db: PostgresJsDatabase<typeof schema>;
  readonly raw: RawSql;
  close(): Promise<void>;
}

const RAW_POOL_SIZE = 4;

/**
 * Opens the clients; connections are made on first use. Drizzle changes the parsers of the client that it is given,
 * so raw use has one of its own. The caller closes it.
 *
 * Transactions have connections of their own. postgres.js may send a `begin` behind the query of a busy connection;
 * where the pipeline is bounded it then refuses the transaction and leaves that connection inside it, and whatever is
 * written there from then on is acknowledged and never committed. A client that only ever begins has no such query,
 * and one that never begins needs no pipeline.
 */
export function openDatabase(options: DatabaseOptions): Database {
  const forTransactions = Math.max(1, Math.ceil(options.poolSize / 2));
  const transactions = openClient(options, { max: forTransactions });
  const queries = openClient(options, {
    max: Math.max(1, options.poolSize - forTransactions),
    ...UNPIPELINED,
  });
  const raw = openClient(options, { max: RAW_POOL_SIZE, ...UNPIPELINED });
  // For its effect on the parsers alone.
  drizzle(transactions, { schema });
  const begin: Begin = async (work) => beginGuarded(transactions, work);
  const db = drizzle(Object.assign(queries, { begin }), { schema });
  const close = async () => {
    await Promise.all([queries, transactions, raw].map((client) => client.end({ timeout: 5 })));
  };
  return { db, raw, close, [Symbol.asyncDispose]: close };
}

type Begin = <T>(work: (sql: postgres.TransactionSql) => Promise<T>) => Promise<unknown>;

/**
 * When work fails because its connection is gone, postgres.js would still send a rollback there: to no socket, which
 * throws where nobody can catch it, or into the transaction of whoever has the connection next. The transaction has
 * failed by then, so that work is never told to have ended.
 */
async function beginGuarded<T>(
  transactions: postgres.Sql,
  work: (sql: postgres.TransactionSql) => Promise<T>,
): Promise<unknown> {
  let isOver = false;
  try {
    return await transactions.begin(async (sql) => {
      try {
        return await work(sql);
      } catch (error) {
        // By the next turn of the loop a connection that broke has said so.
        await setImmediate();
        return isOver ? new Promise<never>(() => undefined) : Promise.reject(error);
      }
    });
  } finally {
    isOver = true;
  }
}

// Pipelining puts a quick query behind a slow one while other connections idle; the option is not in the types.
const UNPIPELINED = { max_pipeline: 0 };

function openClient(options: DatabaseOptions, pool: { max: number; max_pipeline?: number }): postgres.Sql {
  const settings = {
    ...pool,
    connect_timeout: 10,
    onnotice: () => {},
    // The default waits up to twenty seconds before it tries again, and every query waits with it.
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
