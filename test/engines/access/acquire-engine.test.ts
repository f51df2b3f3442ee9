import { afterAll, beforeAll, expect, test } from "vitest";
import { findEngine, orchNow, updateEngineIf } from "../../../db/engines.ts";
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

const use = (userId: string, more: { timeoutMs?: number; expectGeneration?: number } = {}) =>
  acquireEngine(house.ctx, { productId: house.productId, userId, timeoutMs: 60_000, ...more });

test("nobody's engine is not found", async () => {
  await expect(use("nobody")).rejects.toMatchObject({ reason: "ENGINE_NOT_FOUND" });
});

test("a call that finds the engine provisioning waits for it", async () => {
  await provisionEngine(house.ctx, { ...toCall(house, "ada"), wait: false });
  using held = await use("ada");
  expect(held).toMatchObject({ generation: 1 });
  expect((await fetch(`${held.endpoint}/health`)).status).toBe(200);
});

test("whoever did something at the first look is told before a boot is waited for, at a later look too", async () => {
  const { engine } = await provisionEngine(house.ctx, toCall(house, "abe"));
  const key = { productId: house.productId, userId: "abe" };
  const seen: string[] = [];
  const findFirst = async () => {
    const row = await findEngine(house.ctx.db, key);
    // A verb comes and goes between the look and the hold, and leaves the engine booting.
    const gate = { whenBusy: "wait", deadlineMs: 1_000, reason: "ENGINE_RESTARTED" } as const;
    (await house.ctx.holds.closeGate(engine.engineId, gate))[Symbol.dispose]();
    await updateEngineIf(house.ctx.db, { id: engine.engineId }, { status: "starting", nextCheckAt: orchNow });
    seen.push("first look");
    return row;
  };
  const onBlocked = async () => void seen.push("blocked");
  const asked = { ...key, timeoutMs: 60_000, findFirst, onBlocked };
  using held = await acquireEngine(house.ctx, asked);
  expect(held.engineId).toBe(engine.engineId);
  expect(seen).toEqual(["first look", "blocked"]);
});

test("an engine of another generation than expected is refused before anything is sent", async () => {
  await provisionEngine(house.ctx, toCall(house, "bob"));
  await expect(use("bob", { expectGeneration: 7 })).rejects.toMatchObject({ reason: "GENERATION_CHANGED" });
  expect(house.ctx.holds.count((await use("bob", { expectGeneration: 1 })).engineId)).toBe(1);
});

test("a boot that takes longer than the caller will wait is DEADLINE_EXCEEDED, and goes on", async () => {
  const goOn = Promise.withResolvers<void>();
  house.runtime.onCall = async ({ call, when }) => {
    if (call === "start" && when === "before") await goOn.promise;
  };
  await provisionEngine(house.ctx, { ...toCall(house, "cleo"), wait: false });
  await expect(use("cleo", { timeoutMs: 50 })).rejects.toMatchObject({ reason: "DEADLINE_EXCEEDED" });
  house.runtime.onCall = undefined;
  goOn.resolve();
  (await use("cleo")).release();
});

test("whoever waited at the gate of a stop is told that the engine is stopped", async () => {
  await provisionEngine(house.ctx, toCall(house, "dora"));
  const first = await use("dora");
  const before = house.ctx.holds.gateEpoch;
  const stopping = stopEngine(house.ctx, toCall(house, "dora"));
  await expect.poll(() => house.ctx.holds.gateEpoch).toBeGreaterThan(before);
  const second = use("dora");
  first.release();
  await stopping;
  await expect(second).rejects.toMatchObject({ reason: "ENGINE_STOPPED" });
});
