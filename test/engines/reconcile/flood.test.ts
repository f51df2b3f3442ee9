import { randomUUID } from "node:crypto";
import { availableParallelism } from "node:os";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findEngine } from "../../../db/engines.ts";
import { insertTestProduct } from "../../support/insert-product.ts";
import { destroyEngine } from "../../../server/engines/operations/destroy-engine.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { stopEngine } from "../../../server/engines/operations/stop-engine.ts";
import { toReconcileSlots } from "../../../server/engines/reconcile/reconciler.ts";
import { WAIT_HOLD_MS } from "../../../server/engines/reconcile/reconcile-slot.ts";
import { systemClock, type Clock } from "../../../server/time/clock.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

const SLOTS = toReconcileSlots(availableParallelism());
const FLOOD = 3 * SLOTS;

let site: Site;
let house: House;
let otherProduct: string;

beforeEach(async () => {
  site = await openSite({ config: { healthTimeoutMs: 60_000 }, ports: FLOOD + 2 });
  house = await openHouse(site);
  otherProduct = randomUUID();
  await insertTestProduct(house.ctx.db, site.masterKeys, {
    id: otherProduct,
    slug: "other",
    name: "Other",
    policy: {},
  });
});
afterEach(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

const users = Array.from({ length: FLOOD }, (_, index) => `user-${index}`);
const provisionAll = () => Promise.all(users.map((user) => provisionEngine(house.ctx, toCall(house, user))));

/** A house in which a wait gives its slot up when the test says so. */
async function openWithHolds() {
  const pending = new Set<() => void>();
  const after: Clock["after"] = (ms, callback) => {
    if (ms !== WAIT_HOLD_MS) return systemClock.after(ms, callback);
    pending.add(callback);
    return () => pending.delete(callback);
  };
  await house[Symbol.asyncDispose]();
  house = await openHouse(site, { clock: { ...systemClock, after } });
  return { pending, endHolds: () => pending.forEach((callback) => callback()) };
}

const ofOther = () => ({ ...toCall(house, "single"), productId: otherProduct });

test("a flood of destroys works on a bounded number of engines, and lets another product's stop go first", async () => {
  await provisionAll();
  const { engine } = await provisionEngine(house.ctx, ofOther());
  const engines = new Set<string>();
  const opened = Promise.withResolvers<void>();
  house.runtime.onCall = async ({ call, when, input }) => {
    if (call !== "observe" || when !== "before") return;
    engines.add(String(input));
    await opened.promise;
  };
  const destroys = users.map((user) => destroyEngine(house.ctx, toCall(house, user)));
  await expect.poll(() => engines.size).toBe(SLOTS);
  const stop = stopEngine(house.ctx, ofOther());
  const rowOfOther = () => findEngine(house.ctx.db, { productId: otherProduct, userId: "single" });
  await expect.poll(async () => (await rowOfOther())?.leaseReplica).toBe(house.ctx.replica.id);
  expect(engines.size, "no engine beyond the slots").toBe(SLOTS);
  opened.resolve();
  await Promise.all([stop, ...destroys]);
  // The slots of the first engines are given to both products in turn.
  expect([...engines].indexOf(engine.engineId)).toBeLessThanOrEqual(SLOTS + 1);
});

test("engines that only wait for the end of their grace keep no slot", async () => {
  await provisionAll();
  await provisionEngine(house.ctx, ofOther());
  const opened = Promise.withResolvers<void>();
  let stops = 0;
  house.runtime.onCall = async ({ call, when }) => {
    if (call !== "stop" || when !== "before" || (stops += 1) > FLOOD) return;
    await opened.promise;
  };
  const flood = users.map((user) => stopEngine(house.ctx, toCall(house, user)));
  // None of the stops ends, and yet all of them begin.
  await expect.poll(() => stops).toBe(FLOOD);
  await stopEngine(house.ctx, ofOther());
  opened.resolve();
  await Promise.all(flood);
});

test("after a wait without a slot, an engine takes a slot again: no more engines work than there are slots", async () => {
  const { pending, endHolds } = await openWithHolds();
  await provisionAll();
  const waited = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  let stops = 0;
  const working = new Set<string>();
  house.runtime.onCall = async ({ call, when, input }) => {
    if (when !== "before") return;
    if (call === "stop") {
      stops += 1;
      await waited.promise;
    }
    if (call !== "observe" || stops < FLOOD) return;
    working.add(String(input));
    await opened.promise;
  };
  const flood = users.map((user) => stopEngine(house.ctx, toCall(house, user)));
  await expect.poll(() => (endHolds(), stops)).toBe(FLOOD);
  waited.resolve();
  await expect.poll(() => working.size).toBe(SLOTS);
  // An observation is work. It keeps its slot, however long it takes.
  expect(pending.size).toBe(0);
  await findEngine(house.ctx.db, { productId: otherProduct, userId: "single" });
  expect(working.size, "no engine beyond the slots").toBe(SLOTS);
  opened.resolve();
  await Promise.all(flood);
});

test("a replica that closes does not wait for engines without a slot", async () => {
  const { endHolds } = await openWithHolds();
  await provisionAll();
  const waited = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  let stops = 0;
  house.runtime.onCall = async ({ call, when }) => {
    if (when !== "before") return;
    if (call === "stop") {
      stops += 1;
      await waited.promise;
    }
    if (call === "observe" && stops >= FLOOD) await opened.promise;
  };
  const flood = users.map((user) => stopEngine(house.ctx, toCall(house, user)).catch(() => undefined));
  await expect.poll(() => (endHolds(), stops)).toBe(FLOOD);
  const closed = house.ctx.reconciler.close();
  waited.resolve();
  opened.resolve();
  await closed;
  const rows = await Promise.all(
    users.map((userId) => findEngine(house.ctx.db, { productId: house.productId, userId })),
  );
  expect(rows.filter((row) => row?.leaseReplica !== null)).toEqual([]);
  await Promise.all(flood);
});

test("as many provisions at once as there are ports all get one, and the next provision learns that none is free", async () => {
  await using full = await openSite({ config: { healthTimeoutMs: 60_000 }, ports: 12 });
  await using other = await openHouse(full);
  const products = await Promise.all(
    Array.from({ length: 4 }, async (_, index) => {
      const id = randomUUID();
      await insertTestProduct(other.ctx.db, full.masterKeys, {
        id,
        slug: `product-${index}`,
        name: "Product",
        policy: {},
      });
      return id;
    }),
  );
  const calls = products.flatMap((productId) =>
    ["ada", "bob", "cyd"].map((user) => ({ ...toCall(other, user), productId })),
  );
  // A port that another program held a minute ago is free again.
  other.ctx.takenPorts.add(full.config.portMin);
  const provisioned = await Promise.allSettled(calls.map((call) => provisionEngine(other.ctx, call)));
  const failed = provisioned.filter(({ status }) => status === "rejected");
  expect(failed).toMatchObject([{ reason: { reason: "PORT_EXHAUSTION" } }]);
  await expect(provisionEngine(other.ctx, toCall(other, "late"))).rejects.toMatchObject({
    reason: "PORT_EXHAUSTION",
  });
});
