import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { inject } from "vitest";

export interface TestDatabase extends AsyncDisposable {
  /** The url of the superuser, so that tests may read and change what the service may not. */
  readonly url: string;
  close(): Promise<void>;
}

/** Creates a migrated database for one test or file. Closing drops it, even with open connections. */
export async function openTestDatabase(): Promise<TestDatabase> {
  return openDatabaseFrom(inject("databaseTemplate"));
}

/** Creates a database without tables, for tests of the migrations. */
export async function openEmptyDatabase(): Promise<TestDatabase> {
  return openDatabaseFrom("template0");
}

async function openDatabaseFrom(template: string): Promise<TestDatabase> {
  const adminUrl = inject("databaseAdminUrl");
  const name = `${inject("databaseTemplate")}_${randomBytes(6).toString("hex")}`;
  await runAsAdmin(adminUrl, `create database ${name} template ${template}`);
  const url = new URL(adminUrl);
  url.pathname = `/${name}`;
  const close = async () => runAsAdmin(adminUrl, `drop database if exists ${name} with (force)`);
  return { url: url.href, close, [Symbol.asyncDispose]: close };
}

/** Runs statements that are not allowed in a transaction, such as `create database`. */
export async function runAsAdmin(adminUrl: string, ...statements: string[]): Promise<void> {
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} });
  try {
    for (const statement of statements) await sql.unsafe(statement);
  } finally {
    await sql.end({ timeout: 5 });
  }
}
