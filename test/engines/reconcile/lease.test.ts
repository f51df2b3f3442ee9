import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { findEngine, takeEngineLease, updateEngineIf } from "../../../db/engines.ts";
import { deleteReplicas } from "../../../db/replicas.ts";
import { destroyEngine } from "../../../server/engines/operations/destroy-engine.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { restartEngine } from "../../../server/engines/operations/restart-engine.ts";
import { rotateEngineKey } from "../../../server/engines/operations/rotate-engine-key.ts";
import { startEngine } from "../../../server/engines/operations/start-engine.ts";
import { stopEngine } from "../../../server/engines/operations/stop-engine.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

let site: Site;
let house: House;
let userId: string;
let users = 0;

beforeAll(async () => {
  // Neither a probe nor a backoff ends during a test.
  const backoff = { restartBackoffBaseMs: 600_000, restartBackoffMaxMs: 600_000 };
  site = await openSite({ config: { ...backoff, healthTimeoutMs: 60_000 } });
  house = await openHouse(site);
});
beforeEach(() => {
  userId = `user-${(users += 1)}`;
});
afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

const rowOf = () => findEngine(house.ctx.db, { productId: house.productId, userId });
const FREE = { leaseReplica: null };

test("an operation leaves the engine's lease free", async () => {
  const call = toCall(house, userId);
  await provisionEngine(house.ctx, call);
  expect(await rowOf()).toMatchObject({ status: "running", ...FREE });
  await stopEngine(house.ctx, call);
  expect(await rowOf()).toMatchObject({ status: "stopped", ...FREE });
  await startEngine(house.ctx, call);
  expect(await rowOf()).toMatchObject({ status: "running", ...FREE });
  await restartEngine(house.ctx, call);
  expect(await rowOf()).toMatchObject({ status: "running", ...FREE });
  await rotateEngineKey(house.ctx, { ...call, when: "now" });
  expect(await rowOf()).toMatchObject({ status: "running", ...FREE });
  await destroyEngine(house.ctx, call);
  expect(await rowOf()).toBeUndefined();
});

test("a resync leaves the lease free, whether the engine is healthy, was restarted, or has crashed", async () => {
  const { engine } = await provisionEngine(house.ctx, toCall(house, userId));
  const resync = async () => {
    const tokenBefore = (await rowOf())?.fencingToken ?? 0;
    house.ctx.reconciler.resync(engine.engineId);
    await expect.poll(async () => (await rowOf())?.fencingToken).toBeGreaterThan(tokenBefore);
    await expect.poll(async () => (await rowOf())?.leaseReplica).toBeNull();
    return rowOf();
  };
  expect(await resync()).toMatchObject({ status: "running" });
  await house.runtime.restart(engine.engineId);
  await house.ctx.reconciler.reconcile(engine.engineId);
  expect(await rowOf()).toMatchObject({ status: "running", generation: 2, ...FREE });
  await house.runtime.crash(engine.engineId);
  expect(await resync()).toMatchObject({ status: "failed" });
});

test("a reconcile that meets an unreachable runtime leaves the lease free", async () => {
  const { engine } = await provisionEngine(house.ctx, toCall(house, userId));
  house.runtime.failNext("observe", "unreachable");
  expect(await house.ctx.reconciler.reconcile(engine.engineId)).toBe("unreachable");
  expect(await rowOf()).toMatchObject({ status: "running", ...FREE });
});

test("a lease of a replica that lives is respected, and free once that replica is dead", async () => {
  const { engine } = await provisionEngine(house.ctx, toCall(house, userId));
  const other = await openHouse(site);
  const request = { id: engine.engineId, replicaId: other.ctx.replica.id, leaseMs: site.config.leaseMs };
  expect(await takeEngineLease(other.ctx.db, request)).toBeDefined();
  const callsBefore = house.runtime.calls.length;
  expect(await house.ctx.reconciler.reconcile(engine.engineId)).toBe("no_lease");
  expect(house.runtime.calls).toHaveLength(callsBefore);
  expect(await rowOf()).toMatchObject({ leaseReplica: other.ctx.replica.id });
  await deleteReplicas(other.ctx.db, [other.ctx.replica.id]);
  await other[Symbol.asyncDispose]();
  expect(await house.ctx.reconciler.reconcile(engine.engineId)).toBe("steady");
  expect(await rowOf()).toMatchObject(FREE);
});

test("a reconcile releases only its own lease", async () => {
  const { engine } = await provisionEngine(house.ctx, toCall(house, userId));
  const leaseReplica = house.ctx.replica.id;
  house.runtime.onCall = async ({ call, when }) => {
    if (call !== "observe" || when !== "after") return;
    house.runtime.onCall = undefined;
    await updateEngineIf(house.ctx.db, { id: engine.engineId }, { leaseReplica, fencingToken: 1_000 });
  };
  expect(await house.ctx.reconciler.reconcile(engine.engineId)).toBe("no_lease");
  expect(await rowOf()).toMatchObject({ leaseReplica, fencingToken: 1_000 });
});
