import { randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { IdempotencyRecord } from "../../../server/idempotency/idempotency-record.ts";
import { runIdempotent } from "../../../server/idempotency/run-idempotent.ts";
import { listAudit } from "../../../server/audit/list-audit.ts";
import { destroyEngine } from "../../../server/engines/operations/destroy-engine.ts";
import { getEngine } from "../../../server/engines/operations/get-engine.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { revealEngineKey } from "../../../server/engines/operations/reveal-engine-key.ts";
import { rotateEngineKey } from "../../../server/engines/operations/rotate-engine-key.ts";
import { startEngine } from "../../../server/engines/operations/start-engine.ts";
import { stopEngine } from "../../../server/engines/operations/stop-engine.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

let site: Site;
let house: House;

beforeAll(async () => {
  site = await openSite({ config: { healthTimeoutMs: 60_000 } });
  house = await openHouse(site);
});
afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

/** Calls an operation under one idempotency key, each time with the same input. */
function withKey<Reply>(operation: (idempotency: IdempotencyRecord) => Promise<Reply>) {
  const call = { scope: house.productId, key: randomUUID(), procedure: "test", input: {} };
  return async () => runIdempotent(house.ctx, { ...call, onLost: "resume" }, operation);
}

async function countRecords(): Promise<number> {
  return (await house.ctx.db.execute(sql`select from idempotency where state = 'running'`)).length;
}

async function listActions(userId: string): Promise<string[]> {
  const { items } = await listAudit(house.ctx, { scope: house.productId, userId, limit: 100 });
  return items.map(({ action }) => action);
}

/** Until it is disposed, every process of an engine exits as soon as it starts. */
function failBoots(): Disposable {
  house.runtime.onCall = async ({ call, when, input }) => {
    const container = site.daemon.containers.get(String(input));
    if (call === "start" && when === "after" && container !== undefined) await site.daemon.end(container, 1);
  };
  return { [Symbol.dispose]: () => (house.runtime.onCall = undefined) };
}

test("a provision whose boot failed keeps no idempotency record, and its key provisions again", async () => {
  const provision = withKey((idempotency) => provisionEngine(house.ctx, toCall(house, "ann", idempotency)));
  {
    using _failing = failBoots();
    await expect(provision()).rejects.toMatchObject({ reason: "BOOT_FAILED" });
  }
  expect(await countRecords()).toBe(0);
  const { engine, apiKey } = await provision();
  expect(engine.status).toBe("running");
  expect(await provision()).toEqual({ engine, apiKey });
});

test("a start whose boot failed keeps no idempotency record, and its key starts the engine again", async () => {
  await provisionEngine(house.ctx, toCall(house, "ben"));
  await stopEngine(house.ctx, toCall(house, "ben"));
  const start = withKey((idempotency) => startEngine(house.ctx, toCall(house, "ben", idempotency)));
  {
    using _failing = failBoots();
    await expect(start()).rejects.toMatchObject({ reason: "BOOT_FAILED" });
  }
  expect(await countRecords()).toBe(0);
  expect(await start()).toMatchObject({ status: "running" });
});

test("a stop that met a dead runtime is resumed by its key, and writes its desired state once", async () => {
  await provisionEngine(house.ctx, toCall(house, "cyd"));
  const stop = withKey((idempotency) => stopEngine(house.ctx, toCall(house, "cyd", idempotency)));
  house.runtime.unreachable(true);
  await expect(stop()).rejects.toMatchObject({ reason: "RUNTIME_UNREACHABLE" });
  await expect(stop()).rejects.toMatchObject({ reason: "RUNTIME_UNREACHABLE" });
  expect(await countRecords()).toBe(1);
  house.runtime.unreachable(false);
  expect(await stop()).toMatchObject({ status: "stopped" });
  const requests = (await listActions("cyd")).filter((action) => action === "engine.stop_requested");
  expect(requests).toHaveLength(1);
});

test("a refused operation keeps no idempotency record", async () => {
  await provisionEngine(house.ctx, toCall(house, "dan"));
  const refused = withKey((idempotency) => provisionEngine(house.ctx, toCall(house, "dan", idempotency)));
  await expect(refused()).rejects.toMatchObject({ reason: "ENGINE_ALREADY_EXISTS" });
  expect(await countRecords()).toBe(0);
});

test("a rotation that met a dead runtime is resumed by its key and answers the key that it stored", async () => {
  await provisionEngine(house.ctx, toCall(house, "eve"));
  const rotate = withKey((idempotency) =>
    rotateEngineKey(house.ctx, { ...toCall(house, "eve", idempotency), when: "now" }),
  );
  house.runtime.unreachable(true);
  await expect(rotate()).rejects.toMatchObject({ reason: "RUNTIME_UNREACHABLE" });
  house.runtime.unreachable(false);
  const { apiKey } = await rotate();
  expect(await revealEngineKey(house.ctx, toCall(house, "eve"))).toEqual({ apiKey });
  const requests = (await listActions("eve")).filter((action) => action === "engine_key.rotate_requested");
  expect(requests).toHaveLength(1);
});

test("a destroy that is resumed after its engine is gone leaves the user's next engine alone", async () => {
  const { engine } = await provisionEngine(house.ctx, toCall(house, "fay"));
  const destroy = withKey((idempotency) => destroyEngine(house.ctx, toCall(house, "fay", idempotency)));
  house.runtime.unreachable(true);
  await expect(destroy()).rejects.toMatchObject({ reason: "RUNTIME_UNREACHABLE" });
  house.runtime.unreachable(false);
  await house.ctx.reconciler.reconcile(engine.engineId);
  const next = await provisionEngine(house.ctx, toCall(house, "fay"));
  expect(await destroy()).toEqual({ engineId: engine.engineId, destroyed: true });
  expect(await getEngine(house.ctx, toCall(house, "fay"))).toMatchObject({
    engineId: next.engine.engineId,
    status: "running",
  });
});
