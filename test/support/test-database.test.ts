import postgres from "postgres";
import { expect, inject, test } from "vitest";
import { shiftDatabaseClock } from "./shift-clock.ts";
import { openTestDatabase } from "./test-database.ts";

test("eight databases cloned at once are migrated and independent", async () => {
  await using opened = new AsyncDisposableStack();
  const databases = await Promise.all(
    Array.from({ length: 8 }, async () => opened.use(await openTestDatabase())),
  );
  const counts = await Promise.all(
    databases.map(async ({ adminUrl: url }, index) => {
      const sql = postgres(url, { max: 1, onnotice: () => {} });
      await sql`create table mark as select ${index}::int as n`;
      const [row] =
        await sql`select n, (select count(*)::int from drizzle.__drizzle_migrations) as applied from mark`;
      await sql.end();
      return row;
    }),
  );
  expect(counts.map((row) => row?.["n"])).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(counts.every((row) => Number(row?.["applied"]) > 0)).toBe(true);
});

test("close drops the database despite an open connection", async () => {
  const database = await openTestDatabase();
  const sql = postgres(database.url, { max: 1, onnotice: () => {} });
  await sql`select 1`;
  await database.close();
  await sql.end({ timeout: 0 });
  const admin = postgres(inject("databaseAdminUrl"), { max: 1 });
  const name = new URL(database.url).pathname.slice(1);
  expect(await admin`select 1 from pg_database where datname = ${name}`).toHaveLength(0);
  await admin.end();
});

test("the database clock can be shifted and reset, also for open connections", async () => {
  await using database = await openTestDatabase();
  const sql = postgres(database.url, { max: 1 });
  const findShift = async () => {
    const [row] = await sql`select extract(epoch from orch_now() - statement_timestamp())::int as seconds`;
    return row?.["seconds"];
  };
  expect(await findShift()).toBe(0);
  await shiftDatabaseClock(database.url, "1 hour");
  expect(await findShift()).toBe(3600);
  await shiftDatabaseClock(database.url, "-90 seconds");
  expect(await findShift()).toBe(-90);
  await shiftDatabaseClock(database.url, "0");
  expect(await findShift()).toBe(0);
  await sql.end();
});
