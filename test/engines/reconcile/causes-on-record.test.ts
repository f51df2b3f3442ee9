import { afterAll, beforeAll, expect, test } from "vitest";
import { findEngine, findEngineById } from "../../../db/engines.ts";
import { listAudit } from "../../../server/audit/list-audit.ts";
import { destroyEngine } from "../../../server/engines/operations/destroy-engine.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { startEngine } from "../../../server/engines/operations/start-engine.ts";
import { stopEngine } from "../../../server/engines/operations/stop-engine.ts";
import { noteMemoryKill } from "../../../server/engines/reconcile/note-memory-kill.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

let site: Site;
let house: House;

beforeAll(async () => {
  // Long pauses, so that a failed engine stays failed.
  const restarts = { restartBackoffBaseMs: 600_000, restartBackoffMaxMs: 600_000 };
  site = await openSite({ config: { healthTimeoutMs: 60_000, ...restarts } });
  house = await openHouse(site);
});
afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

const OUT_OF_MEMORY =
  "out of memory: its limit is 256 MiB, and policy.resources.memoryMb sets the limit of engines that are provisioned later";

const provision = async (userId: string) =>
  (await provisionEngine(house.ctx, toCall(house, userId))).engine.engineId;
const reconcile = async (engineId: string) => {
  await house.ctx.reconciler.reconcile(engineId);
  return findEngineById(house.ctx.db, engineId);
};

test.each([
  [{ exitCode: 137, oomKilled: true }, `the engine exited (exit code 137), ${OUT_OF_MEMORY}`],
  [
    { exitCode: 137 },
    "the engine exited (exit code 137), killed by the signal SIGKILL, perhaps by the kernel for lack of memory",
  ],
  [{ exitCode: 139 }, "the engine exited (exit code 139), killed by the signal SIGSEGV"],
  [{ exitCode: 3 }, "the engine exited (exit code 3)"],
  [{ exitCode: 255 }, "the engine exited (exit code 255)"],
])("an engine that ended with %j has the cause on its row", async (end, text) => {
  const id = await provision(`ended-${JSON.stringify(end)}`);
  await house.runtime.crash(id, end);
  const row = await reconcile(id);
  expect(row).toMatchObject({ status: "failed" });
  expect(row?.statusReason?.split(";")[0]).toBe(`health_failed: ${text}`);
});

test("a kill for lack of memory is on record, although the runtime forgot it at the restart; a later exit is not blamed on it", async () => {
  const id = await provision("hungry");
  await noteMemoryKill(house.ctx, id);
  await house.runtime.restart(id);
  const statusReason = `health_failed: the engine ran ${OUT_OF_MEMORY}; the runtime started it again`;
  expect(await reconcile(id)).toMatchObject({ status: "running", generation: 2, statusReason });
  const { items } = await listAudit(house.ctx, { scope: house.productId, userId: "hungry", limit: 1 });
  expect(items).toMatchObject([
    { action: "engine.process_changed", metadata: { why: expect.stringContaining("out of memory") } },
  ]);
  await house.runtime.crash(id, { exitCode: 1 });
  expect((await reconcile(id))?.statusReason).toMatch(
    /^health_failed: the engine exited \(exit code 1\)(;|$)/,
  );
  expect(await startEngine(house.ctx, toCall(house, "hungry"))).toMatchObject({ statusReason: null });
});

test("a step that the runtime refuses is on the row and in the answer, and is forgotten once it succeeds", async () => {
  await provision("stubborn");
  house.runtime.failNext("stop", "refused");
  await expect(stopEngine(house.ctx, toCall(house, "stubborn"))).rejects.toMatchObject({
    reason: "ENGINE_UNHEALTHY",
    message: expect.stringContaining("runtime_refused: made to fail: stop"),
    retryAfterMs: 2_000,
  });
  const find = async () => findEngine(house.ctx.db, { productId: house.productId, userId: "stubborn" });
  expect(await find()).toMatchObject({
    status: "stopping",
    statusReason: "runtime_refused: made to fail: stop",
  });
  expect(await stopEngine(house.ctx, toCall(house, "stubborn"))).toMatchObject({
    status: "stopped",
    statusReason: "stopped_by_caller: engines.stop",
  });
  house.runtime.failNext("removeData", "refused");
  await expect(destroyEngine(house.ctx, toCall(house, "stubborn"))).rejects.toMatchObject({
    reason: "ENGINE_DESTROYING",
    message: expect.stringContaining("made to fail: removeData"),
  });
  expect(await destroyEngine(house.ctx, toCall(house, "stubborn"))).toMatchObject({ destroyed: true });
});

test("a container that can never start again is replaced on the same volume; a new one is not replaced without a pause", async () => {
  const id = await provision("unfit");
  await stopEngine(house.ctx, toCall(house, "unfit"));
  house.runtime.failNext("start", "unfit");
  expect(await startEngine(house.ctx, toCall(house, "unfit"))).toMatchObject({
    status: "running",
    generation: 2,
  });
  expect(await findEngineById(house.ctx.db, id)).toMatchObject({ incarnation: 2 });
  await stopEngine(house.ctx, toCall(house, "unfit"));
  house.runtime.failNext("start", "unfit");
  house.runtime.failNext("start", "unfit");
  await expect(startEngine(house.ctx, toCall(house, "unfit"))).rejects.toMatchObject({
    reason: "BOOT_FAILED",
    message: expect.stringMatching(/^runtime_refused: made to fail: start/),
  });
  expect(await startEngine(house.ctx, toCall(house, "unfit"))).toMatchObject({ status: "running" });
  expect(site.daemon.volumes.has(`engine-data-${id}`)).toBe(true);
});
