import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import postgres from "postgres";
import { expect, test } from "vitest";
import { findSchemaState, migrateDatabase } from "../../db/migrate.ts";
import { readMigrations } from "../../db/migration-files.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openEmptyDatabase, openTestDatabase } from "../support/test-database.ts";

test("five concurrent calls apply each migration once, and none fails", async () => {
  await using database = await openEmptyDatabase();
  const results = await Promise.all(Array.from({ length: 5 }, () => migrateDatabase({ url: database.url })));
  const total = (await readMigrations()).length;
  expect(results.reduce((sum, { applied }) => sum + applied, 0)).toBe(total);
  expect(await findSchemaState(database.url)).toBe("current");
});

test("a cloned test database is current, and migrating it again applies nothing", async () => {
  await using database = await openTestDatabase();
  expect(await findSchemaState(database.url)).toBe("current");
  expect(await migrateDatabase({ url: database.url })).toEqual({ applied: 0 });
});

test("an empty database is pending", async () => {
  await using database = await openEmptyDatabase();
  expect(await findSchemaState(database.url)).toBe("pending");
});

test("a database with an unknown migration is not migrated", async () => {
  await using database = await openTestDatabase();
  const sql = postgres(database.url, { max: 1 });
  await sql`insert into drizzle.__drizzle_migrations (hash, created_at) values ('of a later version', 1)`;
  expect(await findSchemaState(sql)).toBe("unknown");
  await sql.end();
  await expect(migrateDatabase({ url: database.url })).rejects.toThrow("this version does not know");
});

test("a migration that fails is named and rolled back, and the earlier ones stay applied", async () => {
  await using database = await openEmptyDatabase();
  await using dir = await openTempDir();
  await writeMigrations(dir.path, {
    "0000_good": "create table first_one (id int)",
    "0001_bad": "create table half (id int);--> statement-breakpoint\nselect no_such_function()",
  });
  const migrating = migrateDatabase({ url: database.url, migrationsDir: dir.path });
  await expect(migrating).rejects.toThrow(/0001_bad failed and was rolled back.*no_such_function/);
  const sql = postgres(database.url, { max: 1 });
  const tables = await sql`select relname from pg_class where relname in ('first_one', 'half')`;
  await sql.end();
  expect(tables.map((row) => row["relname"])).toEqual(["first_one"]);
  expect(await findSchemaState(database.url, dir.path)).toBe("pending");

  await writeMigrations(dir.path, {
    "0000_good": "create table first_one (id int)",
    "0001_bad": "create table half (id int)",
  });
  expect(await migrateDatabase({ url: database.url, migrationsDir: dir.path })).toEqual({ applied: 1 });
});

async function writeMigrations(dir: string, migrations: Record<string, string>): Promise<void> {
  await mkdir(join(dir, "meta"), { recursive: true });
  const entries = Object.keys(migrations).map((tag, when) => ({ tag, when }));
  await writeFile(join(dir, "meta", "_journal.json"), JSON.stringify({ entries }));
  for (const [tag, text] of Object.entries(migrations)) await writeFile(join(dir, `${tag}.sql`), text);
}
