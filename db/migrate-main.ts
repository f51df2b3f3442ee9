import { checkServer } from "./check-server.ts";
import { migrateDatabase } from "./migrate.ts";

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
