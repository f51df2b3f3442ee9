import { randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import { afterEach, beforeEach, expect, test } from "vitest";
import { dataKeys } from "../../db/key-tables.ts";
import { countSealedRows } from "../../db/sealed-rows.ts";
import type { AppContext } from "../../server/compose.ts";
import type { CallContext } from "../../server/context.ts";
import { provisionEngine } from "../../server/engines/operations/provision-engine.ts";
import { revealEngineKey } from "../../server/engines/operations/reveal-engine-key.ts";
import { rotateEngineKey } from "../../server/engines/operations/rotate-engine-key.ts";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { runIdempotent } from "../../server/idempotency/run-idempotent.ts";
import { authenticate } from "../../server/keys/authenticate.ts";
import { issueOperator } from "../../server/keys/issue-operator.ts";
import { issuePlatformKey } from "../../server/keys/issue-platform-key.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { checkMasterKeys } from "../../server/master-keys/check-master-keys.ts";
import { resealRows, type Resealed } from "../../server/master-keys/reseal-rows.ts";
import { SEALED_TABLES } from "../../server/master-keys/sealed-tables.ts";
import { registerProduct } from "../../server/products/register-product.ts";
import { openHouse, openSite, toCall, type Site } from "../engines/open-house.ts";

const OLD = generateMasterKeys();
const NEW = generateMasterKeys();
const [OLD_ID = "", NEW_ID = ""] = [OLD.split(":")[0], NEW.split(":")[0]];
const INSTANCE = { instanceId: "test-instance", adoptsRows: false };

let site: Site;
beforeEach(async () => {
  site = await openSite();
});
afterEach(async () => site[Symbol.asyncDispose]());

const openWith = async (masterKeys: string) => openHouse({ ...site, masterKeys });
type Context = AppContext & CallContext;

/** The first replica of a fresh installation. */
async function openOld() {
  const old = await openWith(OLD);
  // A test made it without a MAC.
  await old.ctx.db.execute(sql`delete from products where id = ${site.productId}`);
  return old;
}

const check = async (ctx: Context, masterKeys: string) =>
  checkMasterKeys({ ...ctx, ...INSTANCE, keyring: openKeyring(masterKeys) });

/** An hour whose turns have a data key. */
const HOUR = "2026010203";

/** A product with engines, keys of both kinds, a stored reply, and a data key of turn content. */
async function fill(ctx: Context, engines: number) {
  const { product, apiKey } = await registerProduct(ctx, {
    slug: "sealed",
    name: "Sealed",
    policy: { maxEngines: 100 },
    idempotency: NO_RECORD,
  });
  const { productId } = product;
  const users = Array.from({ length: engines }, (_, index) => `user-${index}`);
  for (const userId of users) await provisionEngine(ctx, { ...toCall({ productId }, userId) });
  for (let index = 0; index < 10; index += 1) {
    await issuePlatformKey(ctx, { productId, name: `key ${index}`, idempotency: NO_RECORD });
  }
  const operator = await issueOperator(ctx, { name: "grace", idempotency: NO_RECORD });
  await replay(ctx);
  await ctx.dataKeys.prepare(HOUR);
  const dataKeyId = ctx.dataKeys.findOwn(HOUR)?.id ?? "";
  return { productId, apiKey, operatorKey: operator.apiKey, users, dataKeyId };
}

/** The first call stores the reply; later ones get the same. */
async function replay(ctx: Context): Promise<string> {
  const call = { scope: "s", key: "k", procedure: "p", input: {}, onLost: "resume" } as const;
  return runIdempotent(ctx, call, async () => randomUUID());
}

async function resealAll(ctx: Context, batch: number): Promise<Resealed[]> {
  const replies: Resealed[] = [];
  do {
    replies.push(await resealRows(ctx, { batch, idempotency: NO_RECORD }));
  } while ((replies.at(-1)?.remaining ?? 0) > 0 && replies.length < 100);
  return replies;
}

/** Whether any value of any table names the master key. */
async function isNamed(ctx: Context, keyId: string): Promise<boolean> {
  const tables = [...Object.values(SEALED_TABLES).map(({ columns }) => columns.table), dataKeys];
  const texts = await Promise.all(tables.map(async (table) => ctx.db.select().from(table)));
  // A fingerprint is a MAC of an input that is not stored, so nobody can make it again. It ends with its record.
  return JSON.stringify(texts, (name, value: unknown) => (name === "fingerprint" ? "" : value)).includes(
    keyId,
  );
}

test("after a reseal in batches, the old master key can be dropped and everything works", async () => {
  await using old = await openOld();
  await check(old.ctx, OLD);
  const filled = await fill(old.ctx, 3);
  const stored = await replay(old.ctx);
  await using both = await openWith(`${NEW},${OLD}`);
  await check(both.ctx, `${NEW},${OLD}`);
  await expect(check(both.ctx, NEW)).rejects.toThrow(`"${OLD_ID}", which is missing`);

  const replies = await resealAll(both.ctx, 4);
  expect(await replay(both.ctx)).toBe(stored);
  expect(replies.length).toBeGreaterThan(3);
  expect(replies.every(({ resealed }) => resealed <= 4)).toBe(true);
  expect(replies.at(-1)).toMatchObject({ remaining: 0 });
  expect(await isNamed(both.ctx, OLD_ID)).toBe(false);
  // A second reseal finds nothing to do.
  expect(await resealAll(both.ctx, 1_000)).toEqual([{ resealed: 0, remaining: 0, unverified: 0 }]);

  await using next = await openWith(NEW);
  await check(next.ctx, NEW);
  await expect(check(next.ctx, OLD)).rejects.toThrow(`"${NEW_ID}", which is missing`);
  const user = { productId: filled.productId, userId: "user-0" };
  const { apiKey } = await revealEngineKey(next.ctx, user);
  expect(apiKey).toMatch(/^ehe_/);
  expect(await authenticate(next.ctx, filled.apiKey)).toMatchObject({ productId: filled.productId });
  expect(await authenticate(next.ctx, filled.operatorKey)).toMatchObject({ name: "grace" });
  expect(await next.ctx.dataKeys.find(filled.dataKeyId)).toBeDefined();
  // Whether the repeated call has the same input cannot be told any more, so it is refused and not made again.
  await expect(replay(next.ctx)).rejects.toMatchObject({ reason: "IDEMPOTENCY_MISMATCH" });
  const rotation = { ...toCall(user, user.userId), when: "now" } as const;
  expect((await rotateEngineKey(next.ctx, rotation)).apiKey).not.toBe(apiKey);
});

test("a call whose rows use up the batch keeps the old master key for the data keys that are left", async () => {
  await using old = await openOld();
  await check(old.ctx, OLD);
  const { dataKeyId } = await fill(old.ctx, 1);
  await using both = await openWith(`${NEW},${OLD}`);
  let rows = 0;
  for (const { columns } of Object.values(SEALED_TABLES)) {
    rows += await countSealedRows(both.ctx.db, columns, { outdatedFor: NEW_ID });
  }
  const call = { batch: rows, idempotency: NO_RECORD };
  expect(await resealRows(both.ctx, call)).toEqual({ resealed: rows, unverified: 0, remaining: 1 });
  await expect(check(both.ctx, NEW)).rejects.toThrow(`"${OLD_ID}", which is missing`);
  expect(await resealRows(both.ctx, call)).toEqual({ resealed: 1, unverified: 0, remaining: 0 });
  await using next = await openWith(NEW);
  await check(next.ctx, NEW);
  expect(await next.ctx.dataKeys.find(dataKeyId)).toBeDefined();
});

test("a data key that no master key opens neither blocks those behind it nor keeps the old master key in use", async () => {
  await using old = await openOld();
  await check(old.ctx, OLD);
  const { dataKeyId } = await fill(old.ctx, 1);
  await old.ctx.db.insert(dataKeys).values(
    ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"].map((id) => ({
      id,
      hour: HOUR,
      sealed: `v1.${OLD_ID}.damaged`,
    })),
  );
  await using both = await openWith(`${NEW},${OLD}`);
  const replies = await resealAll(both.ctx, 2);
  expect(replies.at(-1)).toMatchObject({ remaining: 0, unverified: 2 });
  await using next = await openWith(NEW);
  await check(next.ctx, NEW);
  expect(await next.ctx.dataKeys.find(dataKeyId)).toBeDefined();
});

test("a rotation during a reseal is not lost, and neither is the reseal", async () => {
  await using old = await openOld();
  const { productId, users } = await fill(old.ctx, 4);
  await using both = await openWith(`${NEW},${OLD}`);
  const rotated = new Map<string, string>();
  const rotate = async (userId: string) => {
    for (let round = 0; round < 3; round += 1) {
      const call = { ...toCall({ productId }, userId), when: "now" } as const;
      rotated.set(userId, (await rotateEngineKey(both.ctx, call)).apiKey);
    }
  };
  const rotating = { goesOn: true };
  const resealing = (async () => {
    while (rotating.goesOn) await resealRows(both.ctx, { batch: 2, idempotency: NO_RECORD });
  })();
  await Promise.all(users.map(rotate));
  rotating.goesOn = false;
  await resealing;
  await resealAll(both.ctx, 100);
  await using next = await openWith(NEW);
  for (const userId of users) {
    const user = { productId, userId };
    expect((await revealEngineKey(next.ctx, user)).apiKey).toBe(rotated.get(userId));
  }
  expect(await isNamed(next.ctx, OLD_ID)).toBe(false);
});

test("a forged row is not made valid by a reseal, and it does not keep the old master key in use", async () => {
  await using old = await openOld();
  await check(old.ctx, OLD);
  const { productId } = await fill(old.ctx, 1);
  await old.ctx.db.execute(sql`update platform_keys set scopes = '{keys}' where name = 'key 3'`);
  await old.ctx.db.execute(
    sql`update engines set spec = jsonb_set(spec, '{catalogPath}', '"/"') where product_id = ${productId}`,
  );
  await using both = await openWith(`${NEW},${OLD}`);
  // The product of the site has no MAC at all.
  const [reply] = await resealAll(both.ctx, 1_000);
  expect(reply).toMatchObject({ remaining: 0, unverified: 2 });
  await using next = await openWith(NEW);
  await check(next.ctx, NEW);
  const [engine] = await next.ctx.db.execute<{ id: string }>(sql`select id from engines`);
  expect(await next.ctx.reconciler.reconcile(engine?.id ?? "")).toBe("tampered");
});

test("another key under the id of the old one is named", async () => {
  await using old = await openOld();
  await check(old.ctx, OLD);
  const imitation = `${OLD_ID}:${generateMasterKeys().split(":")[1]}`;
  await expect(check(old.ctx, imitation)).rejects.toThrow(
    `"${OLD_ID}", and the key with this id is another one`,
  );
  await expect(check(old.ctx, OLD)).resolves.toBeUndefined();
});
