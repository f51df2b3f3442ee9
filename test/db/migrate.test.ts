import { randomUUID } from "node:crypto";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import postgres from "postgres";
import { expect, test } from "vitest";
import { findSchemaState, migrateDatabase } from "../../db/migrate.ts";
import { migrationsDir, readMigrations } from "../../db/migration-files.ts";
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
  const sql = postgres(database.adminUrl, { max: 1 });
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

test("an upgrade gives the engines of the release before their endpoint and the start of their process", async () => {
  await using database = await openEmptyDatabase();
  await using dir = await openTempDir();
  await cp(migrationsDir, dir.path, { recursive: true });
  const journalPath = join(dir.path, "meta", "_journal.json");
  const journal = JSON.parse(await readFile(journalPath, "utf8")) as { entries: { tag: string }[] };
  const entries = journal.entries.slice(0, 2);
  await writeFile(journalPath, JSON.stringify({ entries }));
  await migrateDatabase({ url: database.url, migrationsDir: dir.path });
  const sql = postgres(database.url, { max: 1 });
  const productId = randomUUID();
  await sql`insert into products (id, slug, name, created_at) values (${productId}, 'acme', 'Acme', now())`;
  const startedAt = "2026-01-02T03:04:05.678Z";
  const rows: [string, number | null, string | null][] = [
    ["ran", 9_001, `container@${startedAt}`],
    ["never started", 9_002, "container@never"],
    ["freed", null, null],
  ];
  for (const [userId, port, identity] of rows) {
    await sql`insert into engines (id, product_id, user_id, desired, desired_by, status, spec, spec_hash, volume_name,
        runtime_host, host_port, incarnation, process_identity, generation, key_hash, key_sealed, key_prefix,
        next_check_at, created_at, updated_at)
      values (${randomUUID()}, ${productId}, ${userId}, 'running', 'caller', 'running', '{}', 'hash', 'volume', 'host',
        ${port}, 1, ${identity}, 1, 'hash', 'sealed', 'ehe_', now(), now(), now())`;
  }
  await migrateDatabase({ url: database.url });
  const engines = await sql`select user_id, endpoint, process_started_at from engines order by host_port`;
  await sql.end();
  expect(engines).toEqual([
    { user_id: "ran", endpoint: "http://127.0.0.1:9001", process_started_at: new Date(startedAt) },
    { user_id: "never started", endpoint: "http://127.0.0.1:9002", process_started_at: null },
    { user_id: "freed", endpoint: null, process_started_at: null },
  ]);
});

test("an upgrade keeps the events of the release before, and no copy of the database gets the data keys", async () => {
  await using database = await openEmptyDatabase();
  await using dir = await openTempDir();
  await cp(migrationsDir, dir.path, { recursive: true });
  const journalPath = join(dir.path, "meta", "_journal.json");
  const journal = JSON.parse(await readFile(journalPath, "utf8")) as { entries: { tag: string }[] };
  const index = journal.entries.findIndex(({ tag }) => tag.endsWith("_sealed_turn_events"));
  await writeFile(journalPath, JSON.stringify({ entries: journal.entries.slice(0, index) }));
  await migrateDatabase({ url: database.url, migrationsDir: dir.path });
  const sql = postgres(database.url, { max: 1 });
  await sql`select ensure_turn_partition(now())`;
  await sql`insert into turn_events (product_id, turn_id, turn_started_at, first_seq, last_seq, events)
    values (gen_random_uuid(), gen_random_uuid(), now(), 1, 2, '[1,2]')`;
  await migrateDatabase({ url: database.url });
  const events = await sql`select events, sealed from turn_events`;
  const storage = await sql`
    select distinct attstorage::text from pg_attribute join pg_class on pg_class.oid = attrelid
    where attname = 'sealed' and relname ~ '^turn_events'`;
  const persistence = await sql`
    select relpersistence::text from pg_class where relname = 'data_keys' or relname = 'data_keys_pkey'`;
  await sql.end();
  expect(events).toEqual([{ events: "[1,2]", sealed: null }]);
  expect(storage).toEqual([{ attstorage: "e" }]);
  expect(persistence).toEqual([{ relpersistence: "u" }, { relpersistence: "u" }]);
});
