import { randomUUID } from "node:crypto";
import { sql, type SQL } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDatabase, type Database } from "../../db/client.ts";
import { appendAudit } from "../../server/audit/append-audit.ts";
import { toAuditHash } from "../../server/audit/audit-row.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import { listAuditRows } from "../../db/audit-log.ts";
import { switchTriggersOff } from "./switch-triggers-off.ts";
import { openTestDatabase, type TestDatabase } from "../support/test-database.ts";

let testDatabase: TestDatabase;
let database: Database;

beforeAll(async () => {
  testDatabase = await openTestDatabase();
  // Only the owner of the schema, or a superuser, could do this.
  database = openDatabase({ url: testDatabase.adminUrl, poolSize: 2, applicationName: "verify-audit-test" });
  await switchTriggersOff(testDatabase);
});
afterAll(async () => {
  await database?.close();
  await testDatabase?.close();
});

async function makeChain(rows: number): Promise<string> {
  const scope = randomUUID();
  await database.db.transaction(async (tx) => {
    for (let index = 1; index <= rows; index += 1) {
      await appendAudit(tx, {
        scope,
        actor: { kind: "platform_key", id: randomUUID(), name: "ci" },
        action: "engine.started",
        userId: `user ${index}`,
        engineId: randomUUID(),
        requestId: `request ${index}`,
        metadata: { index },
        durationMs: index,
      });
    }
  });
  return scope;
}

const tamper = async (statement: SQL) => {
  const result = await database.db.execute(statement);
  expect(result.count).toBeGreaterThan(0);
};

test("an empty chain verifies", async () => {
  expect(await verifyAudit(database, { scope: randomUUID() })).toEqual({
    ok: true,
    checked: 0,
    headSeq: 0,
    headHash: "",
    startSeq: 0,
    anchoredSeq: 0,
  });
});

test("a chain of several chunks verifies as a whole and in part", async () => {
  const scope = await makeChain(1_100);
  const verdict = await verifyAudit(database, { scope });
  expect(verdict).toMatchObject({ ok: true, checked: 1_100, headSeq: 1_100 });
  expect(verdict.headHash).toMatch(/^[0-9a-f]{64}$/);
  expect(await verifyAudit(database, { scope, fromSeq: 50, toSeq: 1_049 })).toMatchObject({
    ok: true,
    checked: 1_000,
  });
  expect(await verifyAudit(database, { scope, fromSeq: 1_100, toSeq: 9_999 })).toMatchObject({
    ok: true,
    checked: 1,
  });
  expect(await verifyAudit(database, { scope, fromSeq: 1_101 })).toMatchObject({ ok: true, checked: 0 });
});

describe("a row with any changed column is found and named", () => {
  test.each([
    ["at", sql`at = at + interval '1 microsecond'`],
    ["actor", sql`actor = replace(actor, 'ci', 'cd')`],
    ["actor, in its spaces only", sql`actor = actor || ' '`],
    ["action", sql`action = 'engine.stopped'`],
    ["user", sql`user_id = null`],
    ["engine", sql`engine_id = ${randomUUID()}`],
    ["request", sql`request_id = 'another'`],
    ["metadata", sql`metadata = '{"index":4}'`],
    ["duration", sql`duration_ms = duration_ms + 1`],
    ["previous hash", sql`prev_hash = repeat('a', 64)`],
    ["hash", sql`hash = repeat('a', 64)`],
  ])("%s", async (_column, change) => {
    const scope = await makeChain(5);
    await tamper(sql`update audit_log set ${change} where scope = ${scope} and seq = 3`);
    expect(await verifyAudit(database, { scope })).toMatchObject({ ok: false, checked: 2, firstBadSeq: 3 });
    expect(await verifyAudit(database, { scope, toSeq: 2 })).toMatchObject({ ok: true, checked: 2 });
  });
});

test("a changed row with a recomputed hash is found, because the next row does not link to it", async () => {
  const scope = await makeChain(5);
  await tamper(sql`update audit_log set user_id = 'eve' where scope = ${scope} and seq = 3`);
  const row = (await listAuditRows(database.db, { scope, limit: 10 })).find(({ seq }) => seq === 3);
  if (row === undefined) throw new Error("no row 3");
  await tamper(sql`update audit_log set hash = ${toAuditHash(row)} where scope = ${scope} and seq = 3`);
  expect(await verifyAudit(database, { scope })).toMatchObject({ ok: false, firstBadSeq: 4 });
});

test("a changed last row with a recomputed hash is found, because the head has another hash", async () => {
  const scope = await makeChain(3);
  await tamper(sql`update audit_log set user_id = 'eve' where scope = ${scope} and seq = 3`);
  const [row] = await listAuditRows(database.db, { scope, limit: 1 });
  if (row === undefined) throw new Error("no row");
  await tamper(sql`update audit_log set hash = ${toAuditHash(row)} where scope = ${scope} and seq = 3`);
  expect(await verifyAudit(database, { scope })).toMatchObject({ ok: false, firstBadSeq: 3 });
});

test("a missing row, a missing first row and a missing tail are found", async () => {
  const middle = await makeChain(5);
  await tamper(sql`delete from audit_log where scope = ${middle} and seq = 3`);
  expect(await verifyAudit(database, { scope: middle })).toMatchObject({ ok: false, firstBadSeq: 3 });
  expect(await verifyAudit(database, { scope: middle, fromSeq: 4 })).toMatchObject({
    ok: false,
    firstBadSeq: 4,
  });

  const start = await makeChain(5);
  await tamper(sql`delete from audit_log where scope = ${start} and seq = 1`);
  expect(await verifyAudit(database, { scope: start })).toMatchObject({ ok: false, firstBadSeq: 1 });

  const tail = await makeChain(5);
  await tamper(sql`delete from audit_log where scope = ${tail} and seq > 3`);
  expect(await verifyAudit(database, { scope: tail })).toMatchObject({
    ok: false,
    checked: 3,
    headSeq: 5,
    firstBadSeq: 4,
  });
});

test("a head that was moved back or deleted is found", async () => {
  const scope = await makeChain(5);
  await tamper(
    sql`update audit_heads set seq = 3, hash = (select hash from audit_log l where l.scope = ${scope} and l.seq = 3)
        where scope = ${scope}`,
  );
  expect(await verifyAudit(database, { scope })).toMatchObject({ ok: false, checked: 3, firstBadSeq: 4 });
  await tamper(sql`delete from audit_heads where scope = ${scope}`);
  expect(await verifyAudit(database, { scope })).toMatchObject({ ok: false, checked: 0, firstBadSeq: 1 });
});

test("two exchanged rows are found", async () => {
  const scope = await makeChain(5);
  await tamper(sql`update audit_log set seq = 99 where scope = ${scope} and seq = 2`);
  await tamper(sql`update audit_log set seq = 2 where scope = ${scope} and seq = 3`);
  await tamper(sql`update audit_log set seq = 3 where scope = ${scope} and seq = 99`);
  expect(await verifyAudit(database, { scope })).toMatchObject({ ok: false, firstBadSeq: 2 });
});
