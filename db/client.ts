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
  /** Connections of the Drizzle pool; the raw client has up to four more. */
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
 * Opens both clients; connections are made on first use. Drizzle changes the parsers of the client that it is
 * given, so raw use has one of its own. The caller closes it.
 */
export function openDatabase(options: DatabaseOptions): Database {
  const drizzleClient = openClient(options, options.poolSize);
  const raw = openClient(options, RAW_POOL_SIZE);
  const close = async () => {
    await Promise.all([drizzleClient.end({ timeout: 5 }), raw.end({ timeout: 5 })]);
  };
  return { db: drizzle(drizzleClient, { schema }), raw, close, [Symbol.asyncDispose]: close };
}

function openClient(options: DatabaseOptions, max: number): postgres.Sql {
  const settings = {
    max,
    connect_timeout: 10,
    onnotice: () => {},
    // The default waits up to twenty seconds before it tries again, and every query waits with it.
    backoff: () => 0.2 + Math.random() * 0.2,
    // Pipelining puts a quick query behind a slow one while other connections idle; the option is not in the types.
    // At 0 `begin` never gets its connection, so 1 it is: at most one query queues, and only when all are busy.
    max_pipeline: 1,
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
