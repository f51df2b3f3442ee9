import type postgres from "postgres";
import { openClient } from "./client.ts";
import { findPostgresError } from "./postgres-error.ts";
import { REQUIRED_SETTINGS } from "./session-settings.ts";

const MIN_VERSION = 14;
const POOLER_ROUNDS = 3;
const REMEDY =
  "give the address of Postgres itself, or of a pooler in session mode that passes startup parameters on";

/**
 * Refuses a database that this service cannot work with, and says why: an old version, a read-only server, or a
 * connection pooler that gives one session to several connections.
 *
 * @throws with one of these causes; or the error of the connection.
 */
export async function checkServer(url: string): Promise<void> {
  const open = () => openClient({ url, applicationName: "enginehouse-check" }, { max: 1 });
  const [first, second] = [open(), open()];
  try {
    await checkVersion(first);
    if (await isPooled(first, second)) {
      throw new Error(`a connection pooler in transaction mode answers instead of Postgres: ${REMEDY}`);
    }
    await checkSettings(first);
    await checkWritable(first);
  } catch (error) {
    throw toStartupRefusal(error) ?? error;
  } finally {
    await Promise.all([first.end({ timeout: 0 }), second.end({ timeout: 0 })]);
  }
}

/** @throws if the database is read-only now, as during a failover. */
export async function checkWritable(sql: postgres.Sql): Promise<void> {
  const [row] = await sql<{ standby: boolean; readOnly: boolean }[]>`
    select pg_is_in_recovery() as standby, current_setting('transaction_read_only')::bool as "readOnly"`;
  if (!row?.standby && !row?.readOnly) return;
  const why = row.standby ? "it is a standby" : "default_transaction_read_only is on";
  throw new Error(
    `the database is read-only (${why}): point ORCH_DATABASE_URL at the primary, or let it write`,
  );
}

async function checkVersion(sql: postgres.Sql): Promise<void> {
  const [row] = await ask<{ version: string; major: number }>(
    sql,
    `select current_setting('server_version') as version,
       current_setting('server_version_num')::int / 10000 as major`,
  );
  if (row === undefined || row.major >= MIN_VERSION) return;
  throw new Error(`the database is Postgres ${row.version}: version ${MIN_VERSION} or newer is required`);
}

/** Whether a server process serves both connections, or a connection changes its server process. */
async function isPooled(first: postgres.Sql, second: postgres.Sql): Promise<boolean> {
  for (let round = 0; round < POOLER_ROUNDS; round += 1) {
    const before = await findPid(first);
    const isShared = await second.begin(async (tx) => {
      // A pooler with a single session would let the next question wait for the end of this transaction.
      if ((await findPid(tx)) === before) return true;
      return (await findPid(first)) !== before;
    });
    if (isShared) return true;
  }
  return false;
}

async function findPid(sql: postgres.Sql | postgres.TransactionSql): Promise<number | undefined> {
  const [row] = await ask<{ pid: number }>(sql, "select pg_backend_pid() as pid");
  return row?.pid;
}

async function checkSettings(sql: postgres.Sql): Promise<void> {
  const rows = await ask<{ name: string; setting: string }>(sql, "select name, setting from pg_settings");
  for (const { name, setting } of rows) {
    const required = REQUIRED_SETTINGS.get(name);
    if (required === undefined || required === setting) continue;
    const problem = `a session has ${name} "${setting}", and this service needs "${required}"`;
    throw new Error(`${problem}: remove it from the url, the role and the pooler, or ${REMEDY}`);
  }
}

/** Uses no prepared statement, because a pooler may lose it. */
async function ask<Row extends object>(
  sql: postgres.Sql | postgres.TransactionSql,
  query: string,
): Promise<Row[]> {
  return [...(await sql.unsafe<Row[]>(query))];
}

/** The refusal of a setting that the connection named when it started. */
function toStartupRefusal(error: unknown): Error | undefined {
  const refusal = findPostgresError(error);
  if (refusal?.message.includes("unsupported startup parameter")) {
    return new Error(`a connection pooler refused a connection (${refusal.message}): ${REMEDY}`);
  }
  const [, name] = /^unrecognized configuration parameter "(\w+)"/.exec(refusal?.message ?? "") ?? [];
  if (name === undefined) return undefined;
  return new Error(
    `the database does not know the setting ${name}: Postgres ${MIN_VERSION} or newer is required`,
  );
}
