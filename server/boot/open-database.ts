import { checkServer } from "../../db/check-server.ts";
import { openDatabase, type Database } from "../../db/client.ts";
import { openEmbeddedPostgres } from "../../db/embedded/embedded-postgres.ts";
import { findSchemaState, migrateDatabase } from "../../db/migrate.ts";
import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import type { Config } from "../config/config.ts";
import { toErrorMessage } from "../errors.ts";
import type { Log } from "../log.ts";

/**
 * Opens the configured database, or an embedded one in the data directory. Migrates it if the configuration says so. The
 * stack closes it. Throws if the schema is not the one of this version.
 */
export async function openMigratedDatabase(
  input: { config: Config; log: Log },
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
  { config, log }: { config: Config; log: Log },
  stack: AsyncDisposableStack,
): Promise<Database> {
  const url = config.databaseUrl ?? stack.use(await openEmbedded(config, log)).url;
  await checkServer(url);
  if (config.migrateOnBoot) {
    const { applied } = await migrateDatabase({ url: config.migrationDatabaseUrl ?? url });
    log.info({ applied }, "the database schema is up to date");
  }
  const database = stack.use(
    openDatabase({ url, poolSize: config.databasePool, applicationName: "enginehouse" }),
  );
  const state = await findSchemaState(database.raw);
  if (state === "current") return database;
  const problem = {
    pending: "migrations pending: run `npm run db:migrate`, or set ORCH_MIGRATE_ON_BOOT=true",
    unknown: "a migration that this version does not know: deploy the version that made it",
  };
  throw new Error(`the database has ${problem[state]}`);
}

async function openEmbedded({ dataDir }: Config, log: Log) {
  return openEmbeddedPostgres({ dataDir, log: (message) => log.info({}, message) });
}
