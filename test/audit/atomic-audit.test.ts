import { randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDatabase, type Db } from "../../db/client.ts";
import { listAuditRows } from "../../db/audit-log.ts";
import { listPlatformKeyRows } from "../../db/platform-keys.ts";
import { NO_RECORD, type IdempotencyRecord } from "../../server/idempotency/idempotency-record.ts";
import { appendAudit, openAuditAppends, recordCall } from "../../server/audit/append-audit.ts";
import { SYSTEM_ACTOR, type AuditEntry } from "../../server/audit/audit-entry.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import { DEFAULT_SCOPES, issuePlatformKey } from "../../server/keys/issue-platform-key.ts";
import { revokePlatformKey } from "../../server/keys/revoke-platform-key.ts";
import { runAsAdmin } from "../support/test-database.ts";
import { addProduct, openPlatformContext, type PlatformContext } from "../support/platform-context.ts";

let ctx: PlatformContext;
let productId: string;

beforeAll(async () => {
  ctx = await openPlatformContext();
  productId = (await addProduct(ctx)).product.productId;
  // Refuses audit rows with this name. The insert into audit_log is the last statement of each change.
  await runAsAdmin(
    ctx.adminUrl,
    `create function refuse_record() returns trigger language plpgsql as $$
    begin
      if new.metadata like '%unrecordable%' then raise exception 'no record of this'; end if;
      return new;
    end $$`,
    "create trigger refuse_record before insert on audit_log for each row execute function refuse_record()",
  );
});
afterAll(async () => ctx?.[Symbol.asyncDispose]());

/** Not NO_RECORD, so the key is issued as for a call with an idempotency key: in a transaction. */
const KEYED_RECORD: IdempotencyRecord = { ...NO_RECORD };

const issue = async (name: string, idempotency = NO_RECORD, of = productId) =>
  issuePlatformKey(ctx, { productId: of, name, idempotency });

async function listNames(of = productId): Promise<string[]> {
  const rows = await listPlatformKeyRows(ctx.db, { productId: of, limit: 1_000 });
  return rows.map(({ name }) => name).toSorted();
}

/** The names of the keys whose issue has an audit row, in alphabetical order. */
async function listRecordedNames(db: Db, scope: string): Promise<string[]> {
  const rows = await listAuditRows(db, { scope, limit: 1_000 });
  return rows.map(({ metadata }) => String((JSON.parse(metadata) as { name?: unknown }).name)).toSorted();
}

const entry = (scope: string, more: Partial<AuditEntry> = {}): AuditEntry => ({
  scope,
  actor: SYSTEM_ACTOR,
  action: "engine_key.revealed",
  ...more,
});

test.each([
  ["in one statement", NO_RECORD],
  ["in a transaction", KEYED_RECORD],
])("a key whose audit row is refused is not issued (%s)", async (_how, idempotency) => {
  const before = await listNames();
  await expect(issue("unrecordable", idempotency)).rejects.toThrow();
  expect(await listNames()).toEqual(before);
  await issue("recordable", idempotency);
  expect(await verifyAudit(ctx, { scope: productId })).toMatchObject({ ok: true });
});

test("a key whose revocation gets no audit row is not revoked", async () => {
  const { key } = await issue("revocable");
  await ctx.db.execute(sql`update platform_keys set name = 'unrecordable' where id = ${key.keyId}`);
  await expect(
    revokePlatformKey(ctx, { keyId: key.keyId, graceSeconds: 0, idempotency: NO_RECORD }),
  ).rejects.toThrow();
  const rows = await listPlatformKeyRows(ctx.db, { productId, limit: 1_000 });
  expect(rows.find(({ id }) => id === key.keyId)?.revokedAt).toBeNull();
});

test("of many concurrent changes the refused ones fail alone, and the others are in the chain", async () => {
  const { product } = await addProduct(ctx);
  const names = Array.from({ length: 100 }, (_, n) => (n % 10 === 3 ? `unrecordable ${n}` : `key ${n}`));
  const results = await Promise.allSettled(
    names.map(async (name) => issue(name, NO_RECORD, product.productId)),
  );
  const good = names.filter((name) => name.startsWith("key"));
  expect(results.map(({ status }) => status)).toEqual(
    names.map((name) => (name.startsWith("key") ? "fulfilled" : "rejected")),
  );
  expect(await listNames(product.productId)).toEqual(["default", ...good].toSorted());
  expect(await listRecordedNames(ctx.db, product.productId)).toEqual(["default", ...good].toSorted());
  expect(await verifyAudit(ctx, { scope: product.productId })).toMatchObject({ ok: true, checked: 91 });
});

test("of many concurrent issues each gets its own key, and only the wrong ones are refused", async () => {
  const { product } = await addProduct(ctx);
  const of = product.productId;
  const [first, late, ...rest] = await Promise.allSettled([
    issue("first", NO_RECORD, of),
    issuePlatformKey(ctx, {
      productId: of,
      name: "late",
      expiresAt: "2001-01-01T00:00:00Z",
      idempotency: NO_RECORD,
    }),
    ...Array.from({ length: 40 }, async (_, n) => issue(`key ${n}`, NO_RECORD, of)),
  ]);
  expect(first).toMatchObject({
    status: "fulfilled",
    value: { key: { name: "first", scopes: [...DEFAULT_SCOPES] } },
  });
  expect(late).toMatchObject({ status: "rejected", reason: { reason: "INVALID_INPUT" } });
  rest.forEach((result, n) =>
    expect(result).toMatchObject({
      status: "fulfilled",
      value: { key: { name: `key ${n}`, productId: of } },
    }),
  );
  expect(await listNames(of)).not.toContain("late");
  await expect(issue("orphan", NO_RECORD, randomUUID())).rejects.toMatchObject({
    reason: "PRODUCT_NOT_FOUND",
  });
});

test("a change exists if and only if its audit row exists, however its connections break", async () => {
  await using own = await openPlatformContext();
  const scope = (await addProduct(own)).product.productId;
  const acknowledged: string[] = [];
  const write = async (worker: number) => {
    const idempotency = worker % 2 === 0 ? NO_RECORD : KEYED_RECORD;
    for (let n = 0; n < 10; n += 1) {
      const name = `${worker} ${n}`;
      const issued = issuePlatformKey(own, { productId: scope, name, idempotency });
      await issued.then(
        () => acknowledged.push(name),
        () => undefined,
      );
    }
  };
  const written = new AbortController();
  // Connections of its own: a query that waits behind another one on its connection fails when that connection is cut.
  await using cutter = openDatabase({ url: own.url, poolSize: 2, applicationName: "cutter" });
  let cuts = 0;
  const cut = async () => {
    while (!written.signal.aborted && cuts < 20) {
      // Connections that are still opening run none of these queries, so they are not cut.
      const ended = await cutter.raw`select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'platform-test' and state <> 'idle'
          and (query like '%platform_keys%' or query like '%audit%' or query = 'commit')
          and query not like '%pg_terminate_backend%'`;
      cuts += ended.length;
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const cutting = cut();
  await Promise.all(Array.from({ length: 8 }, async (_, worker) => write(worker)));
  written.abort();
  await cutting;
  expect(cuts).toBeGreaterThan(0);
  await using after = openDatabase({ url: own.url, poolSize: 2, applicationName: "after" });
  const names = (await listPlatformKeyRows(after.db, { productId: scope, limit: 1_000 })).map(
    ({ name }) => name,
  );
  expect(await listRecordedNames(after.db, scope)).toEqual(names.toSorted());
  expect(new Set(names).isSupersetOf(new Set(acknowledged))).toBe(true);
  expect(await verifyAudit(after, { scope })).toMatchObject({ ok: true, checked: names.length });
});

test("two replicas that begin two chains at once make two gapless chains", async () => {
  await using other = openDatabase({ url: ctx.url, poolSize: 6, applicationName: "another" });
  const another = { db: other.db, auditAppends: openAuditAppends(other.db) };
  const scopes = [randomUUID(), randomUUID()];
  const calls = Array.from({ length: 160 }, async (_, n) => {
    const scope = scopes[n % 2] ?? "";
    const { db, auditAppends } = n % 4 < 2 ? ctx : another;
    const item = entry(scope, { metadata: { n } });
    return n % 3 === 0
      ? db.transaction(async (tx) => appendAudit(tx, item))
      : recordCall({ auditAppends }, item);
  });
  const appended = await Promise.all(calls);
  for (const [index, scope] of scopes.entries()) {
    const seqs = appended.filter((_, n) => n % 2 === index).map(({ seq }) => seq);
    expect(seqs.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 80 }, (_, n) => n + 1));
    expect(await verifyAudit(ctx, { scope })).toMatchObject({ ok: true, checked: 80, headSeq: 80 });
  }
});

test("if the first writer of a chain rolls back, the chain begins with the next writer", async () => {
  const scope = randomUUID();
  const given = Promise.withResolvers<void>();
  const first = ctx.db.transaction(async (tx) => {
    await appendAudit(tx, entry(scope));
    given.resolve();
    await expect.poll(async () => countWaiting()).toBeGreaterThan(0);
    throw new Error("gives up");
  });
  await given.promise;
  const second = recordCall(ctx, entry(scope));
  await expect(first).rejects.toThrow("gives up");
  expect(await second).toEqual({ seq: 1 });
  expect(await verifyAudit(ctx, { scope })).toMatchObject({ ok: true, checked: 1 });
});

async function countWaiting(): Promise<number> {
  const [row] = await ctx.raw<{ n: number }[]>`select count(*)::int as n from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'`;
  return row?.n ?? 0;
}
