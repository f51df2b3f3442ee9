import { checkServer } from "../../db/check-server.ts";
import { openDatabase, type Database } from "../../db/client.ts";
import { openEmbeddedPostgres } from "../../db/embedded/embedded-postgres.ts";
import { findSchemaState, migrateDatabase } from "../../db/migrate.ts";
import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import { prepareService } from "../../db/prepare-service.ts";
import { findServiceRights } from "../../db/service-rights.ts";
import { findRole, openServiceRole } from "../../db/service-role.ts";
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
  const { url, ownerUrl } = await findUrls({ config, log, signal }, stack);
  await abortable(checkServer(url), signal);
  if (config.migrateOnBoot) {
    const { applied } = await abortable(migrateDatabase({ url: ownerUrl }), signal);
    const serviceRole = config.databaseServiceRole ?? findRole(url);
    const { auditRetentionMs } = config;
    await abortable(
      prepareService({
        url: ownerUrl,
        serviceRole,
        auditRetentionMs,
        log: (message) => log.info({}, message),
      }),
      signal,
    );
    log.info({ applied }, "the database schema is up to date");
  }
  const database = stack.use(
    openDatabase({ url, poolSize: config.databasePool, applicationName: "enginehouse" }),
  );
  const state = await abortable(findSchemaState(database.raw), signal);
  if (state === "current") {
    await abortable(checkRights({ config, log }, database), signal);
    return database;
  }
  const problem = {
    pending: "migrations pending: run `npm run db:migrate`, or set ORCH_MIGRATE_ON_BOOT=true",
    unknown: "a migration that this version does not know: deploy the version that made it",
  };
  throw new Error(`the database has ${problem[state]}`);
}

/** The role of the service in an embedded Postgres. The superuser of the cluster owns the schema. */
const EMBEDDED_ROLE = "enginehouse_service";

interface DatabaseUrls {
  url: string;
  ownerUrl: string;
}

async function findUrls(
  { config, log, signal }: OpenDatabaseInput,
  stack: AsyncDisposableStack,
): Promise<DatabaseUrls> {
  const { databaseUrl: url, migrationDatabaseUrl } = config;
  if (url !== undefined) return { url, ownerUrl: migrationDatabaseUrl ?? url };
  const { url: ownerUrl } = stack.use(await openEmbedded(config, log, signal));
  return { url: await abortable(openServiceRole(ownerUrl, EMBEDDED_ROLE), signal), ownerUrl };
}

/**
 * @throws if the role of the service lacks a right that the service needs.
 */
async function checkRights(
  { config, log }: Pick<OpenDatabaseInput, "config" | "log">,
  { raw }: Pick<Database, "raw">,
): Promise<void> {
  const [session] = await raw<{ role: string }[]>`select current_user as role`;
  const role = session?.role ?? "";
  const { missing, excess } = await findServiceRights(raw, role);
  if (missing.length > 0) {
    const remedy = `run \`npm run db:migrate\` as the owner of the schema with ORCH_DB_SERVICE_ROLE=${role}`;
    throw new Error(`the database role "${role}" lacks ${missing.join(", ")}: ${remedy}`);
  }
  if (excess.length === 0 || !config.production) return;
  log.warn({ role, excess }, "the database role of this service can change the audit log");
}

async function openEmbedded({ dataDir }: Config, log: Log, signal: AbortSignal) {
  return openEmbeddedPostgres({ dataDir, signal, log: (message) => log.info({}, message) });
}
