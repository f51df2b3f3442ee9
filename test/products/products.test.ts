import { randomUUIDv7 } from "node:crypto";
import { eq, sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { engines } from "../../db/schema.ts";
import { lockProduct } from "../../db/products.ts";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { listAudit } from "../../server/audit/list-audit.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import { DomainError } from "../../server/errors.ts";
import { authenticate } from "../../server/keys/authenticate.ts";
import { finishRemovals } from "../../server/products/finish-removals.ts";
import { getProduct, getProductBySlug } from "../../server/products/get-product.ts";
import { listProducts } from "../../server/products/list-products.ts";
import { ProductPolicy } from "../../server/products/product-policy.ts";
import { registerProduct } from "../../server/products/register-product.ts";
import { removeProduct } from "../../server/products/remove-product.ts";
import { updateProductPolicy } from "../../server/products/update-product-policy.ts";
import {
  addEngine,
  addProduct,
  openPlatformContext,
  type PlatformContext,
} from "../support/platform-context.ts";

let ctx: PlatformContext;

beforeAll(async () => {
  ctx = await openPlatformContext();
});
afterAll(async () => {
  await ctx?.[Symbol.asyncDispose]();
});

const idempotency = NO_RECORD;
const deleteEngine = async ({ productId, userId }: { productId: string; userId: string }) => {
  await ctx.db
    .delete(engines)
    .where(sql`${eq(engines.productId, productId)} and ${eq(engines.userId, userId)}`);
};
async function countWaiting(): Promise<number> {
  const [row] = await ctx.raw<{ n: number }[]>`select count(*)::int as n from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'`;
  return row?.n ?? 0;
}
const refuseDestroy = async (): Promise<never> => {
  throw new Error("nothing to destroy");
};

describe("register", () => {
  test("makes a product and a first key that works, and audits both", async () => {
    const policy = { maxEngines: 3, idle: { pauseAfterS: 60 }, resources: { cpus: 0.5 }, image: "engine:2" };
    const { product, apiKey } = await registerProduct(ctx, {
      slug: "acme",
      name: "Acme ✓",
      policy,
      idempotency,
    });
    expect(product).toEqual({
      productId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      slug: "acme",
      name: "Acme ✓",
      policy,
      engineCount: 0,
      usage: { liveTurns: 0, openStreams: 0, turnLogBytes: 0 },
      createdAt: expect.stringMatching(/^\d{4}-.*Z$/),
      deletedAt: null,
    });
    const { productId } = product;
    expect(await getProduct(ctx, { productId })).toEqual(product);
    expect(await getProductBySlug(ctx, "acme")).toEqual({ productId, policy });
    expect(await authenticate(ctx, apiKey)).toMatchObject({
      kind: "platform_key",
      productId,
      name: "default",
      scopes: ["read", "lifecycle", "turns", "rpc"],
    });
    const own = await listAudit(ctx, { scope: productId, limit: 10 });
    expect(own.items).toMatchObject([{ action: "platform_key.issued", actor: ctx.actor }]);
    const platform = await listAudit(ctx, { scope: "platform", action: "product.registered", limit: 100 });
    expect(platform.items).toContainEqual(
      expect.objectContaining({
        requestId: "request 1",
        metadata: { productId, slug: "acme", name: "Acme ✓", policy },
      }),
    );
    expect(JSON.stringify([own, platform])).not.toContain(apiKey);
  });

  test("concurrently with one slug makes one product, and writes nothing for the other calls", async () => {
    const results = await Promise.allSettled(
      Array.from({ length: 8 }, async () =>
        registerProduct(ctx, { slug: "contested", name: "C", policy: {}, idempotency }),
      ),
    );
    const refused = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
    expect(refused).toHaveLength(7);
    for (const reason of refused) expect(reason).toMatchObject({ reason: "PRODUCT_SLUG_EXISTS" });
    const keys = await ctx.db.execute(
      sql`select count(*)::int as n from platform_keys k join products p on p.id = k.product_id
          where p.slug = 'contested'`,
    );
    expect(keys[0]).toEqual({ n: 1 });
    expect(await verifyAudit(ctx, { scope: "platform" })).toMatchObject({ ok: true });
  });

  test("refuses an image that is not pinned, unless the configuration allows it", async () => {
    const input = { slug: "unpinned", name: "U", policy: { image: "engine:latest" }, idempotency };
    await expect(registerProduct(ctx, input)).rejects.toMatchObject({ reason: "IMAGE_NOT_PINNED" });
    const lax = { ...ctx, config: { ...ctx.config, allowUnpinnedImage: true } };
    expect((await registerProduct(lax, input)).product.policy).toEqual({ image: "engine:latest" });
  });

  test("stores its reply and its effect in one transaction", async () => {
    const replies: unknown[] = [];
    const failing = {
      ...NO_RECORD,
      complete: async (_tx: unknown, reply: unknown) => {
        replies.push(reply);
        throw new DomainError("IDEMPOTENCY_IN_PROGRESS", "taken over");
      },
    };
    const lost = registerProduct(ctx, { slug: "taken-over", name: "T", policy: {}, idempotency: failing });
    await expect(lost).rejects.toMatchObject({ reason: "IDEMPOTENCY_IN_PROGRESS" });
    await expect(getProductBySlug(ctx, "taken-over")).rejects.toMatchObject({ reason: "PRODUCT_NOT_FOUND" });
    expect(replies).toMatchObject([
      { product: { slug: "taken-over" }, apiKey: expect.stringMatching(/^ehp_/) },
    ]);
  });
});

test("a policy with an unknown field or a value out of range is refused", () => {
  const full = {
    maxEngines: 10,
    maxLiveTurns: 20,
    maxLiveTurnsPerKey: 0,
    maxOpenStreams: 1_000_000,
    maxOpenStreamsPerKey: 5,
    turnLogBytesPerHour: 1_099_511_627_776,
    rateLimitRpm: 60,
    idle: { pauseAfterS: 1.5, stopAfterS: 60 },
    resources: { memoryMb: 512, cpus: 0.5, pids: 100, readOnly: true },
    image: "reg:5000/engine@sha256:abc",
  };
  expect(ProductPolicy.parse(full)).toEqual(full);
  expect(ProductPolicy.parse({})).toEqual({});
  for (const bad of [
    { maxEngine: 1 },
    { maxEngines: -1 },
    { maxEngines: 1.5 },
    { maxEngines: null },
    { maxLiveTurns: -1 },
    { maxLiveTurnsPerKey: 1_000_001 },
    { maxOpenStreams: "5" },
    { maxOpenStreamsPerKey: 0.5 },
    { turnLogBytesPerHour: 0 },
    { turnLogBytesPerHour: 2 ** 41 },
    { rateLimitRpm: 0 },
    { idle: { pauseAfterMs: 1 } },
    { idle: { pauseAfterS: 0 } },
    { resources: { gpus: 1 } },
    { resources: { memoryMb: Number.POSITIVE_INFINITY } },
    { image: "" },
    { image: "a b" },
    { image: "a\0" },
  ]) {
    expect(ProductPolicy.safeParse(bad).success).toBe(false);
  }
});

/** Ids are ordered by their millisecond. Within one millisecond their order is random. */
async function nextMillisecond(): Promise<void> {
  const now = Date.now();
  await expect.poll(() => Date.now(), { interval: 1 }).toBeGreaterThan(now);
}

test("a list pages through live products in order of creation, with their numbers of engines", async () => {
  await using own = await openPlatformContext();
  const ids: string[] = [];
  for (let round = 0; round < 5; round += 1) {
    ids.push((await addProduct(own)).product.productId);
    await nextMillisecond();
  }
  const [first = "", second = "", third = ""] = ids;
  await addEngine(own, second, "ann");
  await addEngine(own, second, "bob");
  await removeProduct(own, {
    productId: third,
    destroyEngines: false,
    destroyEngine: refuseDestroy,
    idempotency,
  });
  const page = await listProducts(own, { limit: 2 });
  expect(page.items.map(({ productId, engineCount }) => [productId, engineCount])).toEqual([
    [first, 0],
    [second, 2],
  ]);
  const rest = await listProducts(own, { limit: 10, cursor: page.nextCursor ?? "" });
  expect(rest.items.map(({ productId }) => productId)).toEqual(ids.slice(3));
  expect(rest.nextCursor).toBeNull();
});

describe("a policy update", () => {
  test("replaces the policy, answers how many engines exceed it, and audits both policies", async () => {
    const { productId } = (await addProduct(ctx, { maxEngines: 5, rateLimitRpm: 10 })).product;
    for (const userId of ["a", "b", "c"]) await addEngine(ctx, productId, userId);
    const update = async (policy: ProductPolicy) =>
      updateProductPolicy(ctx, { productId, policy, idempotency });
    expect(await update({ maxEngines: 1 })).toMatchObject({
      product: { policy: { maxEngines: 1 }, engineCount: 3 },
      overBy: 2,
    });
    expect(await update({ maxEngines: 3 })).toMatchObject({ overBy: 0 });
    expect((await update({})).overBy).toBe(0);
    expect((await getProduct(ctx, { productId })).policy).toEqual({});
    const { items } = await listAudit(ctx, {
      scope: "platform",
      action: "product.policy_updated",
      limit: 100,
    });
    expect(items.map(({ metadata }) => metadata)).toContainEqual(
      expect.objectContaining({
        productId,
        before: { maxEngines: 5, rateLimitRpm: 10 },
        after: { maxEngines: 1 },
      }),
    );
    const unpinned = update({ image: "engine" });
    await expect(unpinned).rejects.toMatchObject({ reason: "IMAGE_NOT_PINNED" });
  });

  test("of an absent product is PRODUCT_NOT_FOUND", async () => {
    const update = updateProductPolicy(ctx, { productId: randomUUIDv7(), policy: {}, idempotency });
    await expect(update).rejects.toMatchObject({ reason: "PRODUCT_NOT_FOUND" });
    await expect(getProduct(ctx, { productId: randomUUIDv7() })).rejects.toMatchObject({
      reason: "PRODUCT_NOT_FOUND",
    });
  });
});

describe("remove", () => {
  test("of an empty product refuses its keys at once, frees its slug and keeps its audit log", async () => {
    const { product, apiKey } = await addProduct(ctx);
    const { productId, slug } = product;
    await authenticate(ctx, apiKey);
    const input = { productId, destroyEngines: false, destroyEngine: refuseDestroy, idempotency };
    expect(await removeProduct(ctx, input)).toEqual({ productId, removed: true });
    await expect(authenticate(ctx, apiKey)).rejects.toMatchObject({ reason: "INVALID_KEY" });
    await expect(removeProduct(ctx, input)).rejects.toMatchObject({ reason: "PRODUCT_NOT_FOUND" });
    await expect(getProductBySlug(ctx, slug)).rejects.toMatchObject({ reason: "PRODUCT_NOT_FOUND" });
    expect((await getProduct(ctx, { productId })).deletedAt).not.toBeNull();
    const again = await registerProduct(ctx, { slug, name: "Again", policy: {}, idempotency });
    expect(again.product.productId).not.toBe(productId);
    expect(await verifyAudit(ctx, { scope: productId })).toMatchObject({ ok: true, checked: 1 });
  });

  test("is refused while engines exist, and then changes nothing", async () => {
    const { product, apiKey } = await addProduct(ctx);
    const { productId } = product;
    await addEngine(ctx, productId, "ann");
    const refused = removeProduct(ctx, {
      productId,
      destroyEngines: false,
      destroyEngine: refuseDestroy,
      idempotency,
    });
    await expect(refused).rejects.toMatchObject({ reason: "PRODUCT_NOT_EMPTY" });
    expect(await authenticate(ctx, apiKey)).toMatchObject({ productId });
  });

  test("with destroyEngines destroys each engine once", async () => {
    const { productId } = (await addProduct(ctx)).product;
    const users = Array.from({ length: 11 }, (_, index) => `user ${index}`);
    for (const userId of users) await addEngine(ctx, productId, userId);
    const destroyed: string[] = [];
    const destroyEngine = async (engine: Parameters<typeof deleteEngine>[0]) => {
      destroyed.push(engine.userId);
      await deleteEngine(engine);
    };
    await removeProduct(ctx, { productId, destroyEngines: true, destroyEngine, idempotency });
    expect(destroyed.toSorted()).toEqual(users.toSorted());
    expect((await getProduct(ctx, { productId })).engineCount).toBe(0);
    const { items } = await listAudit(ctx, { scope: "platform", action: "product.removed", limit: 100 });
    expect(items.filter(({ metadata }) => metadata["productId"] === productId)).toMatchObject([
      { metadata: { engineCount: 11 } },
    ]);
  });

  test("that was cut short is continued by the same call or by finishRemovals", async () => {
    const { productId } = (await addProduct(ctx)).product;
    for (const userId of ["ann", "bob", "eve"]) await addEngine(ctx, productId, userId);
    const down = new DomainError("RUNTIME_UNREACHABLE", "no daemon");
    const destroyOnly = (userId: string) => async (engine: Parameters<typeof deleteEngine>[0]) => {
      if (engine.userId !== userId) throw down;
      await deleteEngine(engine);
    };
    const input = { productId, destroyEngines: true, idempotency };
    await expect(removeProduct(ctx, { ...input, destroyEngine: destroyOnly("ann") })).rejects.toBe(down);
    expect((await getProduct(ctx, { productId })).engineCount).toBe(2);
    const refused = removeProduct(ctx, { ...input, destroyEngines: false, destroyEngine: refuseDestroy });
    await expect(refused).rejects.toMatchObject({ reason: "PRODUCT_NOT_EMPTY" });
    await expect(removeProduct(ctx, { ...input, destroyEngine: destroyOnly("bob") })).rejects.toBe(down);
    await finishRemovals(ctx, { destroyEngine: deleteEngine });
    expect((await getProduct(ctx, { productId })).engineCount).toBe(0);
  });

  test("waits for a running provision, and the next provision finds the product removed", async () => {
    const { productId } = (await addProduct(ctx)).product;
    const locked = Promise.withResolvers<void>();
    const provision = ctx.db.transaction(async (tx) => {
      expect(await lockProduct(tx, productId)).toBeDefined();
      locked.resolve();
      // Shorter than the time limits for waiting on a lock and for an idle transaction.
      await expect.poll(countWaiting, { timeout: 10_000 }).toBeGreaterThan(0);
      await addEngine({ ...ctx, db: tx }, productId, "ann");
    });
    await locked.promise;
    const input = { productId, destroyEngines: true, destroyEngine: deleteEngine, idempotency };
    await Promise.all([provision, removeProduct(ctx, input)]);
    expect((await getProduct(ctx, { productId })).engineCount).toBe(0);
    await ctx.db.transaction(async (tx) => {
      expect(await lockProduct(tx, productId)).toBeUndefined();
    });
  });
});
