import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { engines } from "../../../db/schema.ts";
import { getEngine } from "../../../server/engines/operations/get-engine.ts";
import { restartEngine } from "../../../server/engines/operations/restart-engine.ts";
import { rotateEngineKey } from "../../../server/engines/operations/rotate-engine-key.ts";
import { stopEngine } from "../../../server/engines/operations/stop-engine.ts";
import { acquireEngine } from "../../../server/engines/access/acquire-engine.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

let site: Site;
let house: House;

beforeAll(async () => {
  site = await openSite();
  house = await openHouse(site);
});
afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

const acquire = (userId: string, more: { timeoutMs?: number; expectGeneration?: number } = {}) =>
  acquireEngine(house.ctx, { ...toCall(house, userId), timeoutMs: 60_000, ...more });

test("a user without an engine is ENGINE_NOT_FOUND", async () => {
  await expect(acquire("unknown")).rejects.toMatchObject({ reason: "ENGINE_NOT_FOUND" });
});

test("a call that finds the engine in provisioning waits for it", async () => {
  await provisionEngine(house.ctx, { ...toCall(house, "ada"), wait: false });
  using held = await acquire("ada");
  expect(held).toMatchObject({ generation: 1 });
  expect((await fetch(`${held.endpoint}/health`)).status).toBe(200);
});

test("an engine of another generation than expected is refused before anything is sent", async () => {
  await provisionEngine(house.ctx, toCall(house, "bob"));
  await expect(acquire("bob", { expectGeneration: 7 })).rejects.toMatchObject({
    reason: "GENERATION_CHANGED",
  });
  expect(house.ctx.holds.count((await acquire("bob", { expectGeneration: 1 })).engineId)).toBe(1);
});

test("a boot that takes longer than the deadline is DEADLINE_EXCEEDED, and the boot goes on", async () => {
  const mayBoot = Promise.withResolvers<void>();
  house.runtime.onCall = async ({ call, when }) => {
    if (call === "start" && when === "before") await mayBoot.promise;
  };
  await provisionEngine(house.ctx, { ...toCall(house, "cleo"), wait: false });
  await expect(acquire("cleo", { timeoutMs: 50 })).rejects.toMatchObject({ reason: "DEADLINE_EXCEEDED" });
  house.runtime.onCall = undefined;
  mayBoot.resolve();
  (await acquire("cleo")).release();
});

test("a call that waited at the gate of a stop gets ENGINE_STOPPED", async () => {
  await provisionEngine(house.ctx, toCall(house, "dora"));
  const first = await acquire("dora");
  const before = house.ctx.holds.gateChanges;
  const stopping = stopEngine(house.ctx, toCall(house, "dora"));
  await expect.poll(() => house.ctx.holds.gateChanges).toBeGreaterThan(before);
  const second = acquire("dora");
  first.release();
  await stopping;
  await expect(second).rejects.toMatchObject({ reason: "ENGINE_STOPPED" });
});

test("a call whose time ends at the gate of an operation is told what the operation waits for", async () => {
  await provisionEngine(house.ctx, toCall(house, "emma"));
  const first = await acquire("emma");
  const before = house.ctx.holds.gateChanges;
  const stopping = stopEngine(house.ctx, toCall(house, "emma"));
  await expect.poll(() => house.ctx.holds.gateChanges).toBeGreaterThan(before);
  await expect(acquire("emma", { timeoutMs: 50 })).rejects.toMatchObject({
    reason: "DEADLINE_EXCEEDED",
    retryAfterMs: 1_000,
    message: expect.stringContaining("an operation on it waits for 1 call (a call of test)"),
  });
  first.release();
  await stopping;
});

test("within two seconds, a second call to a running engine reads nothing from the database", async () => {
  await provisionEngine(house.ctx, toCall(house, "fay"));
  (await acquire("fay")).release();
  // A change by hand, which no operation and no reconcile announces.
  await house.ctx.db.update(engines).set({ generation: 7 }).where(eq(engines.userId, "fay"));
  using held = await acquire("fay");
  expect(held.generation).toBe(1);
  using asked = await acquire("fay", { expectGeneration: 7 });
  expect(asked.generation).toBe(7);
});

async function acquireAgain(userId: string) {
  using held = await acquire(userId);
  return { generation: held.generation, apiKey: held.apiKey };
}

test("a call after a restart, a rotation, a crash or a stop never uses the row from before", async () => {
  const call = toCall(house, "gil");
  await provisionEngine(house.ctx, call);
  await acquireAgain("gil");
  await restartEngine(house.ctx, call);
  expect(await acquireAgain("gil")).toMatchObject({ generation: 2 });

  const rotated = await rotateEngineKey(house.ctx, { ...call, when: "idle" });
  expect(await acquireAgain("gil")).toEqual(rotated);

  const { engineId } = await getEngine(house.ctx, call);
  for (const container of site.daemon.containers.values()) {
    if (container.spec.engineId === engineId && container.state === "running")
      await site.daemon.end(container, 1);
  }
  await house.ctx.reconciler.reconcile(engineId);
  await expect(acquireAgain("gil")).rejects.toMatchObject({ reason: "ENGINE_UNHEALTHY" });

  await stopEngine(house.ctx, call);
  await expect(acquireAgain("gil")).rejects.toMatchObject({ reason: "ENGINE_STOPPED" });
});
