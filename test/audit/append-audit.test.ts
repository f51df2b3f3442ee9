import { createHash, randomUUID } from "node:crypto";
import canonicalize from "canonicalize";
import { sql } from "drizzle-orm";
import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ensureAuditPartitions } from "../../db/audit-log.ts";
import { openDatabase, type Database } from "../../db/client.ts";
import { appendAudit } from "../../server/audit/append-audit.ts";
import type { AuditEntry } from "../../server/audit/audit-entry.ts";
import { GENESIS_HASH } from "../../server/audit/audit-row.ts";
import { listAudit } from "../../server/audit/list-audit.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import { openTestDatabase, runAsAdmin, type TestDatabase } from "../support/test-database.ts";

let testDatabase: TestDatabase;
let database: Database;

beforeAll(async () => {
  testDatabase = await openTestDatabase();
  database = openDatabase({ url: testDatabase.url, poolSize: 10, applicationName: "append-audit-test" });
});
afterAll(async () => {
  await database?.close();
  await testDatabase?.close();
});

const entry = (scope: string, more: Partial<AuditEntry> = {}): AuditEntry => ({
  scope,
  actor: { kind: "operator", id: "bootstrap", name: "bootstrap" },
  action: "engine.provisioned",
  ...more,
});

const append = async (item: AuditEntry) => database.db.transaction(async (tx) => appendAudit(tx, item));

test("twenty concurrent transactions in a new scope make a gapless chain that verifies", async () => {
  const scope = randomUUID();
  const seqs = await Promise.all(
    Array.from({ length: 20 }, async (_, index) => append(entry(scope, { metadata: { index } }))),
  );
  expect(seqs.map(({ seq }) => seq).sort((a, b) => a - b)).toEqual(
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
  expect(await verifyAudit(database, { scope })).toMatchObject({ ok: true, checked: 20, headSeq: 20 });
  const { items } = await listAudit(database, { scope, limit: 100 });
  const instants = items.map(({ at }) => at);
  expect(instants).toEqual(instants.toSorted().toReversed());
});

test("a change that is rolled back leaves no row and no gap", async () => {
  const scope = randomUUID();
  await append(entry(scope));
  const failed = database.db.transaction(async (tx) => {
    await appendAudit(tx, entry(scope));
    throw new Error("changed my mind");
  });
  await expect(failed).rejects.toThrow("changed my mind");
  expect(await append(entry(scope))).toEqual({ seq: 2 });
  expect(await verifyAudit(database, { scope })).toMatchObject({ ok: true, checked: 2 });
});

test("a caller can compute a row's hash from the fields that the list shows", async () => {
  const scope = randomUUID();
  await append(entry(scope));
  await append(
    entry(scope, {
      userId: 'zoë "the\\user" 🦊',
      engineId: randomUUID(),
      requestId: "request\n1",
      metadata: { b: [1, 2.5, 1e21, null], a: { é: "\u0000\u2028", Z: true } },
      durationMs: 12.6,
    }),
  );
  const { items } = await listAudit(database, { scope, limit: 10 });
  expect(items.map(({ seq }) => seq)).toEqual([2, 1]);
  for (const { hash, ...row } of items) {
    const again = createHash("sha256").update(canonicalize({ scope, ...row }) ?? "");
    expect(hash).toBe(again.digest("hex"));
    expect(row.at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  }
  expect(items[0]?.durationMs).toBe(13);
  expect(items[0]?.prevHash).toBe(items[1]?.hash);
  expect(items[1]?.prevHash).toBe(GENESIS_HASH);
});

test("any JSON metadata is recorded and verifies, also with lone surrogates and NUL", async () => {
  const scope = randomUUID();
  await fc.assert(
    fc.asyncProperty(fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue()), async (metadata) => {
      await append(entry(scope, { metadata: { ...metadata, lone: "\ud800 \u0000" } }));
    }),
    { numRuns: 50 },
  );
  expect(await verifyAudit(database, { scope })).toMatchObject({ ok: true, checked: 50 });
});

test("the next partition exists before a chain reaches it, and the chain continues across the boundary", async () => {
  const scope = randomUUID();
  await append(entry(scope));
  const boundary = 10_000_000;
  await runAsAdmin(
    testDatabase.adminUrl,
    "alter table audit_heads disable trigger all",
    `update audit_heads set seq = ${boundary - 2} where scope = '${scope}'`,
  );
  await Promise.all([ensureAuditPartitions(database.db), ensureAuditPartitions(database.db)]);
  for (let round = 0; round < 3; round += 1) await append(entry(scope));
  const { items } = await listAudit(database, { scope, limit: 3 });
  expect(items.map(({ seq }) => seq)).toEqual([boundary + 1, boundary, boundary - 1]);
  expect(await verifyAudit(database, { scope, fromSeq: boundary })).toMatchObject({ ok: true, checked: 2 });
  await ensureAuditPartitions(database.db);
  const partitions = await database.db.execute(sql`select to_regclass('audit_log_2') is not null as ready`);
  expect(partitions[0]).toEqual({ ready: true });
});
