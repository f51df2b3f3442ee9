import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDatabase } from "../../db/client.ts";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import type { Clock } from "../../server/time/clock.ts";
import { authenticate } from "../../server/keys/authenticate.ts";
import type { ProductCaller } from "../../server/keys/caller.ts";
import { issuePlatformKey } from "../../server/keys/issue-platform-key.ts";
import { KeyStates } from "../../server/keys/key-states.ts";
import { createKey } from "../../server/keys/key-format.ts";
import { listPlatformKeys } from "../../server/keys/list-platform-keys.ts";
import { revokePlatformKey } from "../../server/keys/revoke-platform-key.ts";
import { takePort } from "../support/ports.ts";
import { addProduct, openPlatformContext, type PlatformContext } from "../support/platform-context.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";

const ADMIN_KEY = "an/opaque~string-that-the-operator-chose";

let ctx: PlatformContext;

beforeAll(async () => {
  ctx = await openPlatformContext({ ORCH_ADMIN_KEY: ADMIN_KEY });
});
afterAll(async () => {
  await ctx?.[Symbol.asyncDispose]();
});

const idempotency = NO_RECORD;

/** Runs `work` with a database that cannot be reached. */
async function withoutDatabase<T>(work: (offline: PlatformContext) => Promise<T>): Promise<T> {
  const url = `postgres://nobody@127.0.0.1:${await takePort()}/none`;
  await using database = openDatabase({ url, poolSize: 1, applicationName: "offline-test" });
  const { db, raw } = database;
  return await work({ ...ctx, db, raw, keyStates: new KeyStates({ ...ctx, db }) });
}

/** Makes a context that calls `before` before each prepared query. */
function interceptQueries(context: PlatformContext, before: (query: string) => void): PlatformContext {
  const session = context.db._.session;
  const prepareQuery = (...args: Parameters<typeof session.prepareQuery>) => {
    const prepared = session.prepareQuery(...args);
    const execute = prepared.execute.bind(prepared);
    prepared.execute = async (values) => {
      before(args[0].sql);
      return execute(values);
    };
    return prepared;
  };
  const intercepted = Object.create(session, { prepareQuery: { value: prepareQuery } });
  const db = Object.create(context.db, { session: { value: intercepted } });
  return { ...context, db, keyStates: new KeyStates({ ...context, db }) };
}

describe("the bootstrap operator's key", () => {
  test("is accepted by its hash, without a query", async () => {
    await withoutDatabase(async (offline) => {
      expect(await authenticate(offline, ADMIN_KEY)).toEqual({
        kind: "operator",
        keyId: "bootstrap",
        name: "bootstrap",
        actor: { kind: "operator", id: "bootstrap", name: "bootstrap" },
      });
    });
  });

  test("may have the format of any other key", async () => {
    for (const kind of ["operator", "platform", "engine"] as const) {
      const { plaintext, hash } = createKey(kind);
      const config = { ...ctx.config, adminKeyHash: hash };
      expect(await authenticate({ ...ctx, config }, plaintext)).toMatchObject({ kind: "operator" });
    }
  });
});

test("a text that is not in the format of a platform or operator key is refused without a query", async () => {
  const { plaintext } = createKey("platform");
  const wrongEnd = plaintext.slice(0, -1) + (plaintext.endsWith("0") ? "1" : "0");
  await withoutDatabase(async (offline) => {
    for (const bearer of [
      "",
      "x",
      `${ADMIN_KEY}x`,
      ADMIN_KEY.slice(0, -1),
      wrongEnd,
      plaintext.slice(0, -1),
      plaintext.toLowerCase() === plaintext ? `${plaintext}0` : plaintext.toLowerCase(),
      createKey("engine").plaintext,
      "ehp_\0".padEnd(40, "0"),
      "x".repeat(100_000),
    ]) {
      await expect(authenticate(offline, bearer)).rejects.toMatchObject({ reason: "INVALID_KEY" });
    }
  });
});

test("a well-formed key that was never issued is invalid", async () => {
  const { plaintext } = createKey("platform");
  await expect(authenticate(ctx, plaintext)).rejects.toMatchObject({ reason: "INVALID_KEY" });
});

test("while the database is unavailable, a platform key is answered DATABASE_UNAVAILABLE", async () => {
  await withoutDatabase(async (offline) => {
    await expect(authenticate(offline, createKey("platform").plaintext)).rejects.toMatchObject({
      reason: "DATABASE_UNAVAILABLE",
      retryAfterMs: 1_000,
    });
  });
});

test("an expired key is refused by the database's clock, and as revoked if it was also revoked", async () => {
  await using own = await openPlatformContext();
  const { productId } = (await addProduct(own)).product;
  const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
  const { apiKey, key } = await issuePlatformKey(own, { productId, name: "short", expiresAt, idempotency });
  expect(await authenticate(own, apiKey)).toMatchObject({ keyId: key.keyId });
  await shiftDatabaseClock(own.url, "2 hours");
  await expect
    .poll(async () => authenticate(own, apiKey).catch((error) => error))
    .toMatchObject({
      reason: "KEY_EXPIRED",
    });
  await revokePlatformKey(own, { keyId: key.keyId, graceSeconds: 0, idempotency });
  await expect(authenticate(own, apiKey)).rejects.toMatchObject({ reason: "KEY_REVOKED" });
});

const fixedClock = (now: { ms: number }): Clock => ({ ...ctx.clock, now: () => now.ms });

describe("the cache of key states", () => {
  test("sends one query for many calls at once, and another one after half a second", async () => {
    const { apiKey } = await addProduct(ctx);
    const now = { ms: 1_000_000 };
    let queries = 0;
    const context = interceptQueries({ ...ctx, clock: fixedClock(now) }, () => (queries += 1));
    await ctx.db.execute(sql`update platform_keys set last_used_at = orch_now()`);
    await Promise.all(Array.from({ length: 50 }, async () => authenticate(context, apiKey)));
    expect(queries).toBe(1);
    now.ms += 499;
    await authenticate(context, apiKey);
    expect(queries).toBe(1);
    now.ms += 1;
    await authenticate(context, apiKey);
    expect(queries).toBe(2);
  });

  test("hides a revocation at another replica for half a second at most, even if the clock is set back", async () => {
    for (const step of [500, -3_600_000]) {
      const { apiKey } = await addProduct(ctx);
      const now = { ms: 1_000_000 };
      // Each context has a cache of its own.
      const context = interceptQueries({ ...ctx, clock: fixedClock(now) }, () => {});
      const { keyId } = (await authenticate(context, apiKey)) as ProductCaller;
      await revokePlatformKey(ctx, { keyId, graceSeconds: 0, idempotency });
      expect(await authenticate(context, apiKey)).toMatchObject({ kind: "platform_key" });
      now.ms += step;
      await expect(authenticate(context, apiKey)).rejects.toMatchObject({ reason: "KEY_REVOKED" });
    }
  });

  test("does not keep failures: once the database is back, keys work at once", async () => {
    const { apiKey } = await addProduct(ctx);
    let isAway = true;
    const flaky = interceptQueries({ ...ctx, clock: fixedClock({ ms: 1 }) }, () => {
      if (isAway) throw Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
    });
    await expect(authenticate(flaky, apiKey)).rejects.toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
    isAway = false;
    expect(await authenticate(flaky, apiKey)).toMatchObject({ kind: "platform_key" });
  });
});

test("the time of the last use is written in the background, at most once a minute", async () => {
  await using own = await openPlatformContext();
  const { product, apiKey } = await addProduct(own);
  const lastUse = async () =>
    (await listPlatformKeys(own, { productId: product.productId, limit: 1 })).items[0]?.lastUsedAt ?? null;
  expect(await lastUse()).toBeNull();
  let writes = 0;
  const now = { ms: 1_000_000 };
  const context = interceptQueries({ ...own, clock: fixedClock(now) }, (query) => {
    if (query.startsWith("update")) writes += 1;
  });
  await authenticate(context, apiKey);
  await expect.poll(lastUse).not.toBeNull();
  const first = await lastUse();
  await shiftDatabaseClock(own.url, "30 seconds");
  now.ms += 10_000;
  await authenticate(context, apiKey);
  await shiftDatabaseClock(own.url, "90 seconds");
  now.ms += 10_000;
  await authenticate(context, apiKey);
  await expect.poll(lastUse).not.toBe(first);
  // A write by the second call would have been counted before the write of the third was seen.
  expect(writes).toBe(2);
});
