import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDatabase, type Database } from "../../db/client.ts";
import { appendAudit } from "../../server/audit/append-audit.ts";
import { SYSTEM_ACTOR, type AuditAction } from "../../server/audit/audit-entry.ts";
import { listAudit } from "../../server/audit/list-audit.ts";
import { openTestDatabase, type TestDatabase } from "../support/test-database.ts";

let testDatabase: TestDatabase;
let database: Database;

beforeAll(async () => {
  testDatabase = await openTestDatabase();
  database = openDatabase({ url: testDatabase.url, poolSize: 2, applicationName: "list-audit-test" });
});
afterAll(async () => {
  await database?.close();
  await testDatabase?.close();
});

async function append(scope: string, userId: string | null, action: AuditAction): Promise<void> {
  await database.db.transaction(async (tx) =>
    appendAudit(tx, { scope, actor: SYSTEM_ACTOR, action, userId }),
  );
}

test("pages show the newest rows first, and rows that are appended do not shift them", async () => {
  const scope = randomUUID();
  for (let round = 0; round < 5; round += 1) await append(scope, "ann", "engine.started");
  const first = await listAudit(database, { scope, limit: 2 });
  expect(first.items.map(({ seq }) => seq)).toEqual([5, 4]);
  await append(scope, "ann", "engine.started");
  const second = await listAudit(database, { scope, limit: 2, cursor: first.nextCursor ?? "" });
  expect(second.items.map(({ seq }) => seq)).toEqual([3, 2]);
  const third = await listAudit(database, { scope, limit: 2, cursor: second.nextCursor ?? "" });
  expect(third).toMatchObject({ items: [{ seq: 1 }], nextCursor: null });
});

test("user, action and lowest seq filter the rows, and a list shows one scope only", async () => {
  const scope = randomUUID();
  await append(scope, "ann", "engine.started");
  await append(scope, "bob", "engine.started");
  await append(scope, "ann", "engine.stopped");
  await append(randomUUID(), "ann", "engine.stopped");
  const seqs = async (filter: { userId?: string; action?: AuditAction; fromSeq?: number }) =>
    (await listAudit(database, { scope, limit: 10, ...filter })).items.map(({ seq }) => seq);
  expect(await seqs({ userId: "ann" })).toEqual([3, 1]);
  expect(await seqs({ action: "engine.started" })).toEqual([2, 1]);
  expect(await seqs({ fromSeq: 2 })).toEqual([3, 2]);
  expect(await seqs({ userId: "ann", action: "engine.stopped", fromSeq: 2 })).toEqual([3]);
  expect(await seqs({ userId: "nobody" })).toEqual([]);
});

test("a cursor of no list is refused as INVALID_INPUT", async () => {
  for (const cursor of ["", "x", Buffer.from("0").toString("base64url"), "MTsgZHJvcCB0YWJsZQ"]) {
    await expect(listAudit(database, { scope: "platform", limit: 1, cursor })).rejects.toMatchObject({
      reason: "INVALID_INPUT",
    });
  }
});
