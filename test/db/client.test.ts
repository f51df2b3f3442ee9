import { sql } from "drizzle-orm";
import { expect, test } from "vitest";
import { openDatabase } from "../../db/client.ts";
import { toStatement } from "../../db/prepared-statement.ts";
import { openTestDatabase } from "../support/test-database.ts";

const POOL_SIZE = 4;
/** Enough to occupy every connection that queries use. */
const BUSY_QUERIES = POOL_SIZE + 4;
const CALLS = 40;

test("more transactions and statements than connections all succeed, and everything acknowledged is committed", async () => {
  await using own = await openTestDatabase();
  const { adminUrl: url } = own;
  await using database = openDatabase({ url, poolSize: POOL_SIZE, applicationName: "pool test" });
  await using other = openDatabase({ url, poolSize: POOL_SIZE, applicationName: "another" });
  const { db } = database;
  await db.execute(sql`create table written (n int)`);

  // postgres.js pipelines only behind a statement that is already prepared.
  const pauseFor = toStatement<{ seconds: number }, unknown>(
    "pause",
    sql`select pg_sleep(${sql.placeholder("seconds")})`,
  );
  const pause = async () => pauseFor(db, { seconds: 0.02 });
  const write = async (n: number) => db.execute(sql`insert into written values (${n})`);
  await Promise.all(Array.from({ length: BUSY_QUERIES }, pause));
  const busy = Array.from({ length: BUSY_QUERIES }, pause);
  // By the next turn of the event loop they have been sent.
  await new Promise((resolve) => setImmediate(resolve));
  const calls = Array.from({ length: CALLS }, async (_, n) => {
    await db.transaction(async (tx) => {
      await tx.execute(sql`select pg_sleep(${0.002})`);
      await tx.execute(sql`insert into written values (${n})`);
    });
    await write(CALLS + n);
  });
  await Promise.all([...busy, ...calls]);

  const [seen] = await other.db.execute<{ n: number }>(sql`select count(*)::int as n from written`);
  expect(seen?.n).toBe(2 * CALLS);
  const states = await other.db.execute<{ state: string }>(
    sql`select distinct state from pg_stat_activity
        where application_name = 'pool test' and datname = current_database()`,
  );
  expect([...states].map(({ state }) => state)).toEqual(["idle"]);
});

test("a connection that breaks within a transaction fails only that transaction", async () => {
  await using own = await openTestDatabase();
  await using database = openDatabase({ url: own.adminUrl, poolSize: 2, applicationName: "pool test" });
  const { db } = database;
  await db.execute(sql`create table written (n int)`);
  for (let n = 0; n < 5; n += 1) {
    const broken = db.transaction(async (tx) => {
      await tx.execute(sql`insert into written values (${n})`);
      await tx.execute(sql`select pg_terminate_backend(pg_backend_pid())`);
    });
    await expect(broken).rejects.toThrow();
    // The first transaction after the break may fail too. It is then not written.
    const write = async () =>
      db.transaction(async (tx) => tx.execute(sql`insert into written values (${10 + n})`));
    await expect.poll(write).toBeDefined();
  }
  const rows = await db.execute<{ n: number }>(sql`select n from written order by n`);
  expect(rows.map(({ n }) => n)).toEqual([10, 11, 12, 13, 14]);
});

test("an error in a transaction's work reaches the caller unchanged, and the transaction is rolled back", async () => {
  await using own = await openTestDatabase();
  await using database = openDatabase({ url: own.adminUrl, poolSize: 2, applicationName: "pool test" });
  const { db } = database;
  await db.execute(sql`create table written (n int primary key)`);
  const thrown = new Error("changed my mind");
  const failed = db.transaction(async (tx) => {
    await tx.execute(sql`insert into written values (1)`);
    throw thrown;
  });
  await expect(failed).rejects.toBe(thrown);
  const refused = db.transaction(async (tx) => {
    await tx.execute(sql`insert into written values (1)`);
    await tx.execute(sql`insert into written values (1)`);
  });
  await expect(refused).rejects.toMatchObject({ cause: { constraint_name: "written_pkey" } });
  expect(await db.execute(sql`select n from written`)).toHaveLength(0);
});

test("a transaction parses rows in the same way as the pool", async () => {
  await using own = await openTestDatabase();
  await using database = openDatabase({
    url: own.adminUrl,
    poolSize: POOL_SIZE,
    applicationName: "pool test",
  });
  const { db } = database;
  const query = sql`select now() as at, 1::bigint as big, '{"a":1}'::jsonb as json, date '2026-01-01' as day`;
  const [beside] = await db.execute(query);
  const [within] = await db.transaction(async (tx) => tx.execute(query));
  expect(toTypes(within)).toEqual(toTypes(beside));
});

function toTypes(row: Record<string, unknown> | undefined): string[] {
  return Object.entries(row ?? {}).map(([name, value]) => `${name}: ${typeof value}`);
}
