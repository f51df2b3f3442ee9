import { checkServer } from "../../db/check-server.ts";
import { openDatabase, type Database } from "../../db/client.ts";
import { openEmbeddedPostgres } from "../../db/embedded/embedded-postgres.ts";
import { findSchemaState, migrateDatabase } from "../../db/migrate.ts";
import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import type { Config } from "../config/config.ts";
import { abortable } from "../time/abortable.ts";
import { toErrorMessage } from "../errors.ts";
import type { Log } from "../log.ts";

interface OpenDatabaseInput {
  config: Config;
  log: Log;
  /** Aborts the start, also while Postgres does not answer. */
  signal: AbortSignal;
}

/**
 * Opens the configured database, or an embedded one in the data directory. Migrates it if the configuration says so. The
 * stack closes it. Throws if the schema is not the one of this version.
 */
export async function openMigratedDatabase(
  input: OpenDatabaseInput,
  stack: AsyncDisposableStack,
): Promise<Database> {
  try {
    return await openMigrated(input, stack);
  } catch (error) {
    if (input.config.databaseUrl === undefined || !isDatabaseUnavailable(error)) throw error;
    throw new Error(`the database of ORCH_DATABASE_URL is not available: ${toErrorMessage(error)}`, {
      cause: error,
    });
  }
}

async function openMigrated(
  { config, log, signal }: OpenDatabaseInput,
  stack: AsyncDisposableStack,
): Promise<Database> {
  const url = config.databaseUrl ?? stack.use(await openEmbedded(config, log, signal)).url;
  await abortable(checkServer(url), signal);
  if (config.migrateOnBoot) {
    const { applied } = await abortable(migrateDatabase({ url: config.migrationDatabaseUrl ?? url }), signal);
    log.info({ applied }, "the database schema is up to date");
  }
  const database = stack.use(
    openDatabase({ url, poolSize: config.databasePool, applicationName: "enginehouse" }),
  );
  const state = await abortable(findSchemaState(database.raw), signal);
  if (state === "current") return database;
  const problem = {
    pending: "migrations pending: run `npm run db:migrate`, or set ORCH_MIGRATE_ON_BOOT=true",
    unknown: "a migration that this version does not know: deploy the version that made it",
  };
  throw new Error(`the database has ${problem[state]}`);
}

async function openEmbedded({ dataDir }: Config, log: Log, signal: AbortSignal) {
  return openEmbeddedPostgres({ dataDir, signal, log: (message) => log.info({}, message) });
}
