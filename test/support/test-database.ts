import { randomBytes } from "node:crypto";
import postgres from "postgres";
import { inject } from "vitest";

export interface TestDatabase extends AsyncDisposable {
  /** The url of the service's role, which may do only what the service needs. */
  readonly url: string;
  /** The url of the superuser, for tests that change what the service may not. */
  readonly adminUrl: string;
  close(): Promise<void>;
}

/** Creates a migrated database for one test or file. Closing drops it, even with open connections. */
export async function openTestDatabase(): Promise<TestDatabase> {
  const template = inject("databaseTemplate");
  // The owner's functions make partitions, so the owner of the schema owns the clone too.
  return openDatabaseFrom(`${template} owner ${template}_owner`, inject("databaseServiceUrl"));
}

/** Creates a database without tables, for tests of the migrations. Both urls are the superuser's. */
export async function openEmptyDatabase(): Promise<TestDatabase> {
  return openDatabaseFrom("template0", inject("databaseAdminUrl"));
}

async function openDatabaseFrom(template: string, roleUrl: string): Promise<TestDatabase> {
  const adminUrl = inject("databaseAdminUrl");
  const name = `${inject("databaseTemplate")}_${randomBytes(6).toString("hex")}`;
  await runAsAdmin(adminUrl, `create database ${name} template ${template}`);
  const toUrl = (url: string) => toDatabaseUrl(url, name);
  const close = async () => runAsAdmin(adminUrl, `drop database if exists ${name} with (force)`);
  return { url: toUrl(roleUrl), adminUrl: toUrl(adminUrl), close, [Symbol.asyncDispose]: close };
}

export function toDatabaseUrl(url: string, name: string): string {
  const own = new URL(url);
  own.pathname = `/${name}`;
  return own.href;
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
