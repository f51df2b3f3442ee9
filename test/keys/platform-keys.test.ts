import { randomUUIDv7 } from "node:crypto";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { listAudit } from "../../server/audit/list-audit.ts";
import { authenticate } from "../../server/keys/authenticate.ts";
import { issuePlatformKey } from "../../server/keys/issue-platform-key.ts";
import { hashKey } from "../../server/keys/key-format.ts";
import { listPlatformKeys } from "../../server/keys/list-platform-keys.ts";
import { revokePlatformKey } from "../../server/keys/revoke-platform-key.ts";
import { addProduct, openPlatformContext, type PlatformContext } from "../support/platform-context.ts";

let ctx: PlatformContext;

beforeAll(async () => {
  ctx = await openPlatformContext();
});
afterAll(async () => {
  await ctx?.[Symbol.asyncDispose]();
});

const idempotency = NO_RECORD;
const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString();

describe("issue", () => {
  test("returns the plaintext and stores only its hash", async () => {
    const { productId } = (await addProduct(ctx)).product;
    const expiresAt = inSeconds(3600);
    const { key, apiKey } = await issuePlatformKey(ctx, {
      productId,
      name: "gateway",
      scopes: ["read", "keys", "read"],
      expiresAt,
      idempotency,
    });
    expect(key).toEqual({
      keyId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      productId,
      name: "gateway",
      prefix: apiKey.slice(0, 10),
      scopes: ["read", "keys"],
      createdAt: expect.stringMatching(/Z$/),
      expiresAt,
      revokedAt: null,
      lastUsedAt: null,
    });
    const rows = await ctx.db.execute(sql`select * from platform_keys where id = ${key.keyId}`);
    expect(rows[0]).toMatchObject({ hash: hashKey(apiKey) });
    const { items } = await listAudit(ctx, { scope: productId, limit: 1 });
    expect(items).toMatchObject([
      {
        action: "platform_key.issued",
        metadata: { keyId: key.keyId, name: "gateway", scopes: ["read", "keys"] },
      },
    ]);
    expect(JSON.stringify([rows, items])).not.toContain(apiKey);
    expect(await authenticate(ctx, apiKey)).toMatchObject({ keyId: key.keyId, scopes: ["read", "keys"] });
  });

  test("refuses an expiry in the past, and an absent product", async () => {
    const { productId } = (await addProduct(ctx)).product;
    for (const expiresAt of [inSeconds(-1), "0000-01-01T00:00:00Z"]) {
      const late = issuePlatformKey(ctx, { productId, name: "late", expiresAt, idempotency });
      await expect(late).rejects.toMatchObject({ reason: "INVALID_INPUT", issues: [{ path: "expiresAt" }] });
    }
    expect((await listPlatformKeys(ctx, { productId, limit: 10 })).items).toHaveLength(1);
    const absent = issuePlatformKey(ctx, { productId: randomUUIDv7(), name: "x", idempotency });
    await expect(absent).rejects.toMatchObject({ reason: "PRODUCT_NOT_FOUND" });
  });
});

/** Ids are ordered by time in milliseconds. Two ids of one millisecond may have either order. */
async function nextMillisecond(): Promise<void> {
  const now = Date.now();
  await expect.poll(() => Date.now(), { interval: 1 }).toBeGreaterThan(now);
}

test("a list pages through the keys of one product, and shows neither plaintext nor hash", async () => {
  const { product, apiKey } = await addProduct(ctx);
  await addProduct(ctx);
  const { productId } = product;
  for (const name of ["two", "three"]) {
    await nextMillisecond();
    await issuePlatformKey(ctx, { productId, name, idempotency });
  }
  const first = await listPlatformKeys(ctx, { productId, limit: 2 });
  expect(first.items.map(({ name }) => name)).toEqual(["default", "two"]);
  const rest = await listPlatformKeys(ctx, { productId, limit: 2, cursor: first.nextCursor ?? "" });
  expect(rest).toMatchObject({ items: [{ name: "three" }], nextCursor: null });
  const shown = JSON.stringify([first, rest]);
  expect(shown).not.toContain(apiKey);
  expect(shown).not.toContain(hashKey(apiKey));
  const absent = listPlatformKeys(ctx, { productId: randomUUIDv7(), limit: 2 });
  await expect(absent).rejects.toMatchObject({ reason: "PRODUCT_NOT_FOUND" });
});

const issue = async () => {
  const { product } = await addProduct(ctx);
  const issued = await issuePlatformKey(ctx, { productId: product.productId, name: "old", idempotency });
  return { ...issued, productId: product.productId, keyId: issued.key.keyId };
};
const revocations = async (scope: string) =>
  (await listAudit(ctx, { scope, action: "platform_key.revoked", limit: 10 })).items;

describe("revoke", () => {
  test("without a grace period refuses the key at once, and succeeds when repeated", async () => {
    const { apiKey, keyId, productId } = await issue();
    await authenticate(ctx, apiKey);
    const key = await revokePlatformKey(ctx, { keyId, graceSeconds: 0, idempotency });
    expect(key.revokedAt).not.toBeNull();
    await expect(authenticate(ctx, apiKey)).rejects.toMatchObject({ reason: "KEY_REVOKED" });
    const again = await revokePlatformKey(ctx, { keyId, graceSeconds: 3600, idempotency });
    expect(again.revokedAt).toBe(key.revokedAt);
    expect(await revocations(productId)).toHaveLength(1);
  });

  test("with a grace period keeps the key valid until its end, and of two revocations the earlier counts", async () => {
    const { apiKey, keyId, productId } = await issue();
    const later = await revokePlatformKey(ctx, { keyId, graceSeconds: 3600, idempotency });
    expect(await authenticate(ctx, apiKey)).toMatchObject({ keyId });
    const sooner = await revokePlatformKey(ctx, { keyId, graceSeconds: 60, idempotency });
    expect(Date.parse(sooner.revokedAt ?? "")).toBeLessThan(Date.parse(later.revokedAt ?? ""));
    const again = await revokePlatformKey(ctx, { keyId, graceSeconds: 3600, idempotency });
    expect(again.revokedAt).toBe(sooner.revokedAt);
    expect(await revocations(productId)).toMatchObject([
      { metadata: { keyId, graceSeconds: 60 } },
      { metadata: { keyId, graceSeconds: 3600 } },
    ]);
    await revokePlatformKey(ctx, { keyId, graceSeconds: 0, idempotency });
    await expect(authenticate(ctx, apiKey)).rejects.toMatchObject({ reason: "KEY_REVOKED" });
  });

  test("of an absent key, or of another product's key, answers KEY_NOT_FOUND", async () => {
    const { keyId } = await issue();
    for (const input of [{ keyId: randomUUIDv7() }, { keyId, productId: randomUUIDv7() }]) {
      const revoked = revokePlatformKey(ctx, { ...input, graceSeconds: 0, idempotency });
      await expect(revoked).rejects.toMatchObject({ reason: "KEY_NOT_FOUND" });
    }
  });
});
