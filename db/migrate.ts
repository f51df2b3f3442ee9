import postgres from "postgres";
import { readMigrations, type Migration } from "./migration-files.ts";
import { SESSION_SETTINGS } from "./session-settings.ts";

/** `unknown`: the database has a migration that this code does not know. */
export type SchemaState = "current" | "pending" | "unknown";

interface MigrateInput {
  readonly url: string;
  readonly log?: (message: string) => void;
  /** Default: the migrations of the project. */
  readonly migrationsDir?: string;
}

// The letters "enginehs". Any constant works that no other program locks in this database.
const lockKey = "7308327829064410227";

/**
 * Applies the pending migrations in order. Each has a transaction of its own, which holds the migration lock. Of several
 * callers at once, one applies a migration; the others wait and find nothing to do.
 *
 * @throws if the database has a migration that this code does not know, or if a migration fails.
 */
export async function migrateDatabase(input: MigrateInput): Promise<{ applied: number }> {
  const migrations = await readMigrations(input.migrationsDir);
  return withConnection(input.url, async (sql) => {
    let applied = 0;
    for (;;) {
      const migration = await applyNext(sql, migrations);
      if (migration === undefined) return { applied };
      applied += 1;
      input.log?.(`applied migration ${migration.tag}`);
    }
  });
}

/** Compares the database with the migrations of this code. Takes no lock and changes nothing. */
export async function findSchemaState(
  database: string | postgres.Sql,
  migrationsDir?: string,
): Promise<SchemaState> {
  const migrations = await readMigrations(migrationsDir);
  const find = async (sql: postgres.Sql) => toSchemaState(migrations, await listAppliedHashes(sql));
  return typeof database === "string" ? withConnection(database, find) : find(database);
}

function toSchemaState(migrations: readonly Migration[], applied: ReadonlySet<string>): SchemaState {
  const known = new Set(migrations.map(({ hash }) => hash));
  if (!applied.isSubsetOf(known)) return "unknown";
  return known.isSubsetOf(applied) ? "current" : "pending";
}

/** Begins a transaction that holds the migration lock. */
export async function withMigrationLock<T>(
  sql: postgres.Sql,
  work: (tx: postgres.TransactionSql) => Promise<T>,
): Promise<T> {
  const result = await sql.begin(async (tx) => {
    // Another migration may hold the migration lock for long. The service's traffic holds table locks only briefly.
    await tx`set local lock_timeout = '15min'`;
    await tx`select pg_advisory_xact_lock(${lockKey}::bigint)`;
    await tx`set local lock_timeout = '10s'`;
    // Wrapped, because postgres.js awaits the elements of an array.
    return { value: await work(tx) };
  });
  return (result as { value: T }).value;
}

async function applyNext(sql: postgres.Sql, migrations: Migration[]): Promise<Migration | undefined> {
  return withMigrationLock(sql, async (tx) => {
    const applied = await listAppliedHashes(tx);
    if (toSchemaState(migrations, applied) === "unknown") {
      throw new Error("the database has a migration that this version does not know: run the newer version");
    }
    const migration = migrations.find(({ hash }) => !applied.has(hash));
    if (migration !== undefined) await apply(tx, migration);
    return migration;
  });
}

async function apply(tx: postgres.TransactionSql, migration: Migration): Promise<void> {
  try {
    for (const statement of migration.statements) await tx.unsafe(statement);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`migration ${migration.tag} failed and was rolled back: ${reason}`, { cause: error });
  }
  // Drizzle's own tools read and write the same table.
  await tx`create schema if not exists drizzle`;
  await tx`create table if not exists drizzle.__drizzle_migrations (
    id serial primary key, hash text not null, created_at bigint)`;
  await tx`insert into drizzle.__drizzle_migrations (hash, created_at)
    values (${migration.hash}, ${migration.when})`;
}

async function listAppliedHashes(sql: postgres.Sql | postgres.TransactionSql): Promise<Set<string>> {
  const [table] = await sql`select to_regclass('drizzle.__drizzle_migrations') is not null as exists`;
  if (table?.["exists"] !== true) return new Set();
  const rows = await sql<{ hash: string }[]>`select hash from drizzle.__drizzle_migrations`;
  return new Set(rows.map(({ hash }) => hash));
}

/** Runs the work on a connection of its own, with the time limits of migrations. */
export async function withConnection<T>(url: string, work: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(url, {
    max: 1,
    connect_timeout: 10,
    onnotice: () => {},
    connection: {
      application_name: "enginehouse-migrate",
      ...SESSION_SETTINGS,
      lock_timeout: 10_000,
      // A migration that rewrites a table takes long. One that hangs must not hold its locks for ever.
      statement_timeout: 30 * 60 * 1000,
      idle_in_transaction_session_timeout: 60 * 1000,
    },
  });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}
