import "../cli/quick-imports.ts";
import { exitIfAnswered } from "../cli/command-line.ts";

const SETTINGS = ["ORCH_MIGRATION_DATABASE_URL", "ORCH_DATABASE_URL"];
exitIfAnswered({
  settings: SETTINGS,
  usage: `
npm run db:migrate    bring the schema of the database up to date

The database is ORCH_MIGRATION_DATABASE_URL, or ORCH_DATABASE_URL if that is not set. Exit codes: 0 when the schema is
current, 1 when a migration failed, 2 when no database is configured.`,
});

const url = process.env["ORCH_MIGRATION_DATABASE_URL"] || process.env["ORCH_DATABASE_URL"];

if (url) {
  await run(url);
} else {
  process.stderr.write(
    "db:migrate: no database is configured: set ORCH_MIGRATION_DATABASE_URL or ORCH_DATABASE_URL\n",
  );
  process.exitCode = 2;
}

async function run(databaseUrl: string): Promise<void> {
  const { checkServer } = await import("./check-server.ts");
  const { migrateDatabase } = await import("./migrate.ts");
  try {
    await checkServer(databaseUrl);
    const { applied } = await migrateDatabase({ url: databaseUrl, log: print });
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
