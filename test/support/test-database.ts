import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { inject } from "vitest";

export interface TestDatabase extends AsyncDisposable {
  /** Of the superuser, so that tests may look and break where the service may not. */
  readonly url: string;
  close(): Promise<void>;
}

/** A migrated database of the test's own, one per file by default. Closing drops it, open connections or not. */
export async function openTestDatabase(): Promise<TestDatabase> {
  return openDatabaseFrom(inject("databaseTemplate"));
}

/** A database without any table, for tests of the migrations. */
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

/** Statements that run in no transaction: making and dropping databases. */
export async function runAsAdmin(adminUrl: string, ...statements: string[]): Promise<void> {
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} });
  try {
    for (const statement of statements) await sql.unsafe(statement);
  } finally {
    await sql.end({ timeout: 5 });
  }
}
