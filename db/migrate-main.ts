import "../cli/quick-imports.ts";
import { exitIfAnswered } from "../cli/command-line.ts";

const SETTINGS = [
  "ORCH_MIGRATION_DATABASE_URL",
  "ORCH_DATABASE_URL",
  "ORCH_DB_SERVICE_ROLE",
  "ORCH_AUDIT_RETENTION_S",
];
exitIfAnswered({
  settings: SETTINGS,
  usage: `
npm run db:migrate    bring the schema of the database up to date

The database is ORCH_MIGRATION_DATABASE_URL, or ORCH_DATABASE_URL if that is not set. Its role owns the schema.
The role of the service gets the rights that it needs: ORCH_DB_SERVICE_ROLE, or the role of ORCH_DATABASE_URL.
ORCH_AUDIT_RETENTION_S is how many seconds the audit log is kept; without it, for ever.

Exit codes: 0 when the schema is current, 1 when a migration failed, 2 when a setting is missing or wrong.`,
});

const ownUrl = process.env["ORCH_DATABASE_URL"] || undefined;
const url = process.env["ORCH_MIGRATION_DATABASE_URL"] || ownUrl;
const retention = process.env["ORCH_AUDIT_RETENTION_S"]?.trim() || undefined;
// This program and the service take the same values.
// oxlint-disable-next-line no-restricted-imports -- a program, which nothing in db/ imports
const { auditRetentionSeconds } = await import("../server/config/value-kinds.ts");
const retentionMs = auditRetentionSeconds.schema.optional().safeParse(retention);

if (url === undefined) {
  refuse("no database is configured: set ORCH_MIGRATION_DATABASE_URL or ORCH_DATABASE_URL");
} else if (!retentionMs.success) {
  refuse(`ORCH_AUDIT_RETENTION_S is "${retention}": it takes ${auditRetentionSeconds.takes}`);
} else {
  await run(url, retentionMs.data);
}

function refuse(problem: string): void {
  process.stderr.write(`db:migrate: ${problem}\n`);
  process.exitCode = 2;
}

async function run(databaseUrl: string, auditRetentionMs: number | undefined): Promise<void> {
  const { checkServer } = await import("./check-server.ts");
  const { migrateDatabase } = await import("./migrate.ts");
  const { prepareService } = await import("./prepare-service.ts");
  const { findRole } = await import("./service-role.ts");
  try {
    await checkServer(databaseUrl);
    const { applied } = await migrateDatabase({ url: databaseUrl, log: print });
    await prepareService({
      url: databaseUrl,
      serviceRole: process.env["ORCH_DB_SERVICE_ROLE"] || (ownUrl && findRole(ownUrl)),
      auditRetentionMs,
      log: print,
    });
    print(applied === 0 ? "nothing to apply, the schema is current" : `${applied} migrations applied`);
  } catch (error) {
    // The error itself may contain the url with its password.
    process.stderr.write(`db:migrate: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}

function print(message: string): void {
  process.stdout.write(`db:migrate: ${message}\n`);
}
