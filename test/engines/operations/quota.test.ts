import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { countEngines, listEngineRows } from "../../../db/engines.ts";
import { deleteReplicas } from "../../../db/replicas.ts";
import { runIdempotent } from "../../../server/idempotency/run-idempotent.ts";
import { NO_RECORD, type IdempotencyRecord } from "../../../server/idempotency/idempotency-record.ts";
import { destroyEngine } from "../../../server/engines/operations/destroy-engine.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { getProduct } from "../../../server/products/get-product.ts";
import type { ProductPolicy } from "../../../server/products/product-policy.ts";
import { registerProduct } from "../../../server/products/register-product.ts";
import { updateProductPolicy } from "../../../server/products/update-product-policy.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

let site: Site;
let house: House;
/** Another replica over the same database and daemon. */
let other: House;
let productId: string;
let products = 0;

beforeAll(async () => {
  site = await openSite({ ports: 200 });
  [house, other] = [await openHouse(site), await openHouse(site)];
});
afterAll(async () => {
  await other[Symbol.asyncDispose]();
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});
beforeEach(async () => {
  products += 1;
  const slug = `product-${products}`;
  const registered = await registerProduct(house.ctx, {
    slug,
    name: slug,
    policy: {},
    idempotency: NO_RECORD,
  });
  ({ productId } = registered.product);
});

const setPolicy = async (policy: ProductPolicy) =>
  updateProductPolicy(house.ctx, { productId, policy, idempotency: NO_RECORD });

const record = async (
  { ctx }: House,
  userId: string,
  more: { wait?: boolean; idempotency?: IdempotencyRecord } = {},
) => provisionEngine(ctx, { ...toCall({ productId }, userId), wait: false, ...more });

/** Provisions under one idempotency key. */
const keyed = async (replica: House) =>
  runIdempotent(
    replica.ctx,
    { scope: productId, key: "k", procedure: "engines.provision", input: {}, onLost: "resume" },
    async (idempotency) => record(replica, "ann", { idempotency }),
  );

const destroy = async ({ ctx }: House, userId: string) => destroyEngine(ctx, toCall({ productId }, userId));

const count = async () => countEngines(house.ctx.db, productId);
const reasonOf = async (call: Promise<unknown>) =>
  call.then(
    () => "made",
    (error: unknown) => (error as { reason?: string }).reason ?? String(error),
  );

/** Boots of this test's product never end well. */
async function failBoots<T>(work: () => Promise<T>): Promise<T> {
  for (const { runtime } of [house, other]) {
    runtime.onCall = async ({ call, when, input }) => {
      const container = site.daemon.containers.get(String(input));
      if (call === "start" && when === "after" && container !== undefined)
        await site.daemon.end(container, 3);
    };
  }
  try {
    return await work();
  } finally {
    for (const { runtime } of [house, other]) runtime.onCall = undefined;
  }
}

test("a hundred concurrent provisions over two replicas with a limit of ten make exactly ten engines", async () => {
  await setPolicy({ maxEngines: 10 });
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, async (_, index) =>
      reasonOf(record(index % 2 === 0 ? house : other, `user-${index}`)),
    ),
  );
  expect(outcomes.filter((outcome) => outcome === "made")).toHaveLength(10);
  expect(outcomes.filter((outcome) => outcome === "QUOTA_EXCEEDED")).toHaveLength(90);
  expect(await count()).toBe(10);
});

test("below the limit and at it a provision is made, one above it is refused with the limit and the count", async () => {
  await setPolicy({ maxEngines: 2 });
  await record(house, "ann");
  await record(house, "bob");
  const refused = record(house, "eve");
  await expect(refused).rejects.toMatchObject({ reason: "QUOTA_EXCEEDED", retryAfterMs: undefined });
  await expect(refused).rejects.toThrow(
    "the product has 2 engine(s), and its policy allows 2 (maxEngines), those that have failed or are being destroyed " +
      "included: destroy engines, or ask an operator to raise the limit",
  );
  expect(await count()).toBe(2);
});

test("a limit of 0 refuses every provision, and without a limit there is none", async () => {
  await setPolicy({ maxEngines: 0 });
  expect(await reasonOf(record(house, "ann"))).toBe("QUOTA_EXCEEDED");
  await setPolicy({});
  expect(await reasonOf(record(house, "ann"))).toBe("made");
});

test("another product's engines do not count", async () => {
  const other = productId;
  await setPolicy({ maxEngines: 1 });
  await record(house, "ann");
  const { product } = await registerProduct(house.ctx, {
    slug: `other-of-${products}`,
    name: "Other",
    policy: { maxEngines: 1 },
    idempotency: NO_RECORD,
  });
  ({ productId } = product);
  expect(await reasonOf(record(house, "ann"))).toBe("made");
  expect(await countEngines(house.ctx.db, other)).toBe(1);
});

describe("at the limit", () => {
  test("a provision of a user who has an engine is not denied by the quota", async () => {
    await setPolicy({ maxEngines: 1 });
    await record(house, "ann", { wait: true });
    expect(await reasonOf(record(house, "ann"))).toBe("ENGINE_ALREADY_EXISTS");
  });

  test("a retry with the same idempotency key gets the engine of its first call", async () => {
    await setPolicy({ maxEngines: 1 });
    const first = await keyed(house);
    expect(await keyed(other)).toEqual(first);
    expect(await count()).toBe(1);
  });

  test("a denied provision leaves its idempotency key free for a later attempt", async () => {
    await setPolicy({ maxEngines: 0 });
    expect(await reasonOf(keyed(house))).toBe("QUOTA_EXCEEDED");
    await setPolicy({ maxEngines: 1 });
    expect(await reasonOf(keyed(house))).toBe("made");
  });

  test("an engine whose first boot has failed counts until it is destroyed, and may be provisioned again", async () => {
    await setPolicy({ maxEngines: 1 });
    expect(await failBoots(async () => reasonOf(record(house, "ann", { wait: true })))).toBe("BOOT_FAILED");
    expect(await reasonOf(record(house, "bob"))).toBe("QUOTA_EXCEEDED");
    expect(await reasonOf(record(house, "ann", { wait: true }))).toBe("made");
    await destroy(house, "ann");
    expect(await reasonOf(record(house, "bob"))).toBe("made");
  });

  test("an engine that is being destroyed counts until it is gone", async () => {
    await setPolicy({ maxEngines: 1 });
    await record(house, "ann", { wait: true });
    const reached = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    house.runtime.onCall = async ({ call, when }) => {
      if (call !== "removeData" || when !== "before") return;
      reached.resolve();
      await released.promise;
    };
    const destroying = destroy(house, "ann");
    await reached.promise;
    expect(await reasonOf(record(other, "bob"))).toBe("QUOTA_EXCEEDED");
    released.resolve();
    await destroying;
    house.runtime.onCall = undefined;
    expect(await reasonOf(record(other, "bob"))).toBe("made");
  });
});

test("a new limit is in force at the next provision of every replica, and a lower one destroys nothing", async () => {
  for (const userId of ["ann", "bob", "eve"]) await record(house, userId);
  expect(await setPolicy({ maxEngines: 1 })).toMatchObject({
    overBy: 2,
    product: { policy: { maxEngines: 1 }, engineCount: 3 },
  });
  for (const replica of [house, other]) expect(await reasonOf(record(replica, "dan"))).toBe("QUOTA_EXCEEDED");
  expect(await count()).toBe(3);
  expect(await setPolicy({ maxEngines: 4 })).toMatchObject({ overBy: 0 });
  expect(await reasonOf(record(other, "dan"))).toBe("made");
  expect(await reasonOf(record(house, "fay"))).toBe("QUOTA_EXCEEDED");
});

/** The same numbers in each run. */
function openRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}

test("whatever is provisioned, fails, is destroyed and crashes, the product never has more engines than it may", async () => {
  const MAX = 4;
  await setPolicy({ maxEngines: MAX });
  const random = openRandom(17);
  let most = 0;
  const seen = new Set<string>();
  for (let round = 0; round < 12; round += 1) {
    const isFailing = random() < 0.3;
    const calls = Array.from({ length: 12 }, () => {
      const replica = random() < 0.5 ? house : other;
      const userId = `user-${Math.floor(random() * 8)}`;
      const wait = random() < 0.5;
      return async () =>
        reasonOf(random() < 0.35 ? destroy(replica, userId) : record(replica, userId, { wait }));
    });
    const work = async () => Promise.all(calls.map(async (call) => call()));
    const watching = new AbortController();
    const watch = (async () => {
      while (!watching.signal.aborted) most = Math.max(most, await count());
    })();
    const outcomes = await (isFailing ? failBoots(work) : work());
    watching.abort();
    await watch;
    const EXPECTED = [
      "made",
      "QUOTA_EXCEEDED",
      "ENGINE_ALREADY_EXISTS",
      "ENGINE_DESTROYING",
      "ENGINE_NOT_FOUND",
      "BOOT_FAILED",
      // The other replica holds the engine's lease.
      "DEADLINE_EXCEEDED",
    ];
    expect(outcomes.filter((outcome) => !EXPECTED.includes(outcome))).toEqual([]);
    for (const outcome of outcomes) seen.add(outcome);
  }
  expect(most).toBe(MAX);
  expect(seen).toContain("QUOTA_EXCEEDED");
  expect(seen).toContain("BOOT_FAILED");
  // What is left can be destroyed, and then everything is free again.
  for (const { userId } of await listEngineRows(house.ctx.db, { productId, limit: 100 })) {
    await destroy(house, userId);
  }
  const again = Array.from({ length: MAX }, async (_, index) => reasonOf(record(house, `new-${index}`)));
  expect(await Promise.all(again)).toEqual(Array.from({ length: MAX }, () => "made"));
  expect((await getProduct(house.ctx, { productId })).engineCount).toBe(MAX);
});

test("after a crash in the middle of a provision the engine counts, and its retry is not denied", async () => {
  await setPolicy({ maxEngines: 1 });
  const dead = await openHouse(site);
  class Crash extends Error {}
  dead.runtime.onCall = ({ call }) => {
    if (call === "ensure") throw new Crash("in the middle of a boot");
  };
  await record(dead, "ann");
  await dead[Symbol.asyncDispose]();
  await deleteReplicas(house.ctx.db, [dead.ctx.replica.id]);
  expect(await reasonOf(record(house, "bob"))).toBe("QUOTA_EXCEEDED");
  expect(await reasonOf(record(house, "ann"))).toBe("ENGINE_ALREADY_EXISTS");
});
