import { afterAll, beforeAll, expect, test } from "vitest";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
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
