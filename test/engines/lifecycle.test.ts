import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { afterMs, findEngine, findEngineById, updateEngineIf } from "../../db/engines.ts";
import { orchNow } from "../../db/orch-now.ts";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { destroyEngine } from "../../server/engines/operations/destroy-engine.ts";
import { EngineHolds } from "../../server/engines/access/engine-holds.ts";
import { toDefaultImage } from "../../server/engines/model/engine-spec.ts";
import { getEngine } from "../../server/engines/operations/get-engine.ts";
import { listEngines } from "../../server/engines/operations/list-engines.ts";
import { provisionEngine } from "../../server/engines/operations/provision-engine.ts";
import { restartEngine } from "../../server/engines/operations/restart-engine.ts";
import { revealEngineKey } from "../../server/engines/operations/reveal-engine-key.ts";
import { rotateEngineKey } from "../../server/engines/operations/rotate-engine-key.ts";
import { startEngine } from "../../server/engines/operations/start-engine.ts";
import { stopEngine } from "../../server/engines/operations/stop-engine.ts";
import { acquireEngine } from "../../server/engines/access/acquire-engine.ts";
import type { HeldEngine } from "../../server/engines/access/hold-engine.ts";
import { hashKey } from "../../server/keys/key-format.ts";
import { listAudit } from "../../server/audit/list-audit.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import type { ContainerSpec } from "../../server/runtime/engine-runtime.ts";
import { MemoryDaemon } from "../support/memory-daemon.ts";
import { answerAsEngine } from "../support/memory-engine.ts";
import { openHouse, openSite, toCall, type House, type Site } from "./open-house.ts";

let site: Site;
let house: House;

beforeAll(async () => {
  // No probe times out, however slow the machine is.
  site = await openSite({ config: { healthTimeoutMs: 60_000 } });
  house = await openHouse(site);
});
afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

type Call = ReturnType<typeof toCall>;

const containersOf = (engineId: string) =>
  [...site.daemon.containers.values()].filter((container) => container.spec.engineId === engineId);

describe("the life of an engine", () => {
  test("a provisioned engine runs, and its container has only the hash of the returned key", async () => {
    const { engine, apiKey } = await provisionEngine(house.ctx, toCall(house, "ada"));
    expect(engine).toMatchObject({
      status: "running",
      generation: 1,
      restarts: 0,
      userId: "ada",
      drift: false,
    });
    const [container] = containersOf(engine.engineId);
    expect(container?.spec.environment["ENGINE_KEY_HASH"]).toBe(hashKey(apiKey));
    expect(JSON.stringify(container?.spec)).not.toContain(apiKey);
    expect(await getEngine(house.ctx, toCall(house, "ada"))).toEqual(engine);
  });

  test("a second provision of the same user is refused, and one of ten concurrent ones creates the engine", async () => {
    const answers = await Promise.allSettled(
      Array.from({ length: 10 }, () => provisionEngine(house.ctx, toCall(house, "ten"))),
    );
    expect(answers.filter((answer) => answer.status === "fulfilled")).toHaveLength(1);
    for (const answer of answers) {
      if (answer.status === "rejected")
        expect(answer.reason).toMatchObject({ reason: "ENGINE_ALREADY_EXISTS" });
    }
    const row = await findEngine(house.ctx.db, { productId: house.productId, userId: "ten" });
    expect(containersOf(row?.id ?? "")).toHaveLength(1);
  });

  test("provision without waiting returns at once, with the key that the engine will have", async () => {
    const { engine, apiKey } = await provisionEngine(house.ctx, { ...toCall(house, "quick"), wait: false });
    expect(engine.status).toBe("provisioning");
    await expect
      .poll(async () => (await getEngine(house.ctx, toCall(house, "quick"))).status)
      .toBe("running");
    expect(await revealEngineKey(house.ctx, toCall(house, "quick"))).toEqual({ apiKey });
  });

  test("stop and start keep the volume and the key, and move the generation", async () => {
    const { engine, apiKey } = await provisionEngine(house.ctx, toCall(house, "bob"));
    const stopped = await stopEngine(house.ctx, toCall(house, "bob"));
    expect(stopped).toMatchObject({ status: "stopped", desired: "stopped" });
    expect(stopped.statusReason).toMatch(/^stopped_by_caller: /);
    expect(await stopEngine(house.ctx, toCall(house, "bob"))).toMatchObject({ status: "stopped" });
    await expect(
      acquireEngine(house.ctx, { ...toCall(house, "bob"), timeoutMs: 60_000 }),
    ).rejects.toMatchObject({
      reason: "ENGINE_STOPPED",
    });
    const started = await startEngine(house.ctx, toCall(house, "bob"));
    expect(started).toMatchObject({ status: "running", generation: 2, engineId: engine.engineId });
    using held = await acquireEngine(house.ctx, { ...toCall(house, "bob"), timeoutMs: 60_000 });
    expect(held.apiKey).toBe(apiKey);
  });

  test("restart makes a new process once and moves the generation", async () => {
    await provisionEngine(house.ctx, toCall(house, "cleo"));
    const before = await getEngine(house.ctx, toCall(house, "cleo"));
    const restarted = await restartEngine(house.ctx, toCall(house, "cleo"));
    expect(restarted).toMatchObject({ status: "running", generation: before.generation + 1, restarts: 1 });
  });

  test("the boot time counts from the start of the process, however long the stop of the one before took", async () => {
    const stopMs = 1_000;
    await provisionEngine(house.ctx, toCall(house, "clio"));
    house.runtime.onCall = async ({ call, when }) => {
      if (call !== "stop" || when !== "before") return;
      house.runtime.onCall = undefined;
      await new Promise((resolve) => setTimeout(resolve, stopMs));
    };
    const begin = Date.now();
    const { bootMs } = await restartEngine(house.ctx, toCall(house, "clio"));
    // A timer may be a millisecond early, and clocks round.
    expect(bootMs).toBeLessThan(Date.now() - begin - stopMs + 10);
  });

  test("a stop during a start ends in stopped, never running", async () => {
    await provisionEngine(house.ctx, toCall(house, "dora"));
    await stopEngine(house.ctx, toCall(house, "dora"));
    house.runtime.onCall = async ({ call, when }) => {
      if (call !== "start" || when !== "after") return;
      house.runtime.onCall = undefined;
      stopping = stopEngine(house.ctx, toCall(house, "dora"));
      // The desired state is recorded before the start in progress continues.
      await expect
        .poll(async () => (await getEngine(house.ctx, toCall(house, "dora"))).desired)
        .toBe("stopped");
    };
    let stopping: Promise<unknown> = Promise.resolve();
    await expect(startEngine(house.ctx, toCall(house, "dora"))).rejects.toMatchObject({
      reason: "ENGINE_STOPPED",
    });
    await stopping;
    expect(await getEngine(house.ctx, toCall(house, "dora"))).toMatchObject({ status: "stopped" });
    const started = { scope: house.productId, userId: "dora", action: "engine.started", limit: 1 } as const;
    expect((await listAudit(house.ctx, started)).items).toEqual([]);
  });

  test("destroy removes container, volume, port and row, and a new engine has another id", async () => {
    const { engine } = await provisionEngine(house.ctx, toCall(house, "eve"));
    expect(await destroyEngine(house.ctx, toCall(house, "eve"))).toEqual({
      engineId: engine.engineId,
      destroyed: true,
    });
    expect(containersOf(engine.engineId)).toEqual([]);
    expect([...site.daemon.volumes.values()].some((volume) => volume.engineId === engine.engineId)).toBe(
      false,
    );
    await expect(destroyEngine(house.ctx, toCall(house, "eve"))).rejects.toMatchObject({
      reason: "ENGINE_NOT_FOUND",
    });
    const again = await provisionEngine(house.ctx, toCall(house, "eve"));
    expect(again.engine.engineId).not.toBe(engine.engineId);
  });

  test("a key rotation makes a new container on the same volume, and removes the old container", async () => {
    const first = await provisionEngine(house.ctx, toCall(house, "finn"));
    const rotated = await rotateEngineKey(house.ctx, { ...toCall(house, "finn"), when: "now" });
    expect(rotated.apiKey).not.toBe(first.apiKey);
    expect(rotated.generation).toBe(2);
    const containers = containersOf(first.engine.engineId);
    expect(containers).toHaveLength(1);
    expect(containers[0]?.spec.environment["ENGINE_KEY_HASH"]).toBe(hashKey(rotated.apiKey));
    expect(containers[0]?.spec.volumeName).toBe(`engine-data-${first.engine.engineId}`);
    expect(await revealEngineKey(house.ctx, toCall(house, "finn"))).toEqual({ apiKey: rotated.apiKey });
  });

  test("the next process of a stopped engine has the key that was rotated while it was stopped", async () => {
    await provisionEngine(house.ctx, toCall(house, "gus"));
    await stopEngine(house.ctx, toCall(house, "gus"));
    const rotated = await rotateEngineKey(house.ctx, { ...toCall(house, "gus"), when: "now" });
    const { engineId } = await startEngine(house.ctx, toCall(house, "gus"));
    expect(containersOf(engineId).map((container) => container.spec.environment["ENGINE_KEY_HASH"])).toEqual([
      hashKey(rotated.apiKey),
    ]);
  });

  test("whenBusy rejects the operation, waits for the holds, or interrupts them", async () => {
    await provisionEngine(house.ctx, toCall(house, "hal"));
    const held = await acquireEngine(house.ctx, { ...toCall(house, "hal"), timeoutMs: 60_000 });
    await expect(
      stopEngine(house.ctx, { ...toCall(house, "hal"), whenBusy: "reject" }),
    ).rejects.toMatchObject({
      reason: "ENGINE_BUSY",
    });
    const stopping = stopEngine(house.ctx, toCall(house, "hal"));
    expect(held.interrupted.aborted).toBe(false);
    held.release();
    expect(await stopping).toMatchObject({ status: "stopped" });
    await startEngine(house.ctx, toCall(house, "hal"));
    const again = await acquireEngine(house.ctx, { ...toCall(house, "hal"), timeoutMs: 60_000 });
    again.interrupted.addEventListener("abort", () => {
      again.release();
    });
    await stopEngine(house.ctx, { ...toCall(house, "hal"), whenBusy: "interrupt" });
    expect(again.interrupted.reason).toBe("ENGINE_STOPPED");
  });

  test.each([
    ["stop", stopEngine],
    ["restart", restartEngine],
    ["destroy", destroyEngine],
    ["rotate", async (ctx: House["ctx"], call: Call) => rotateEngineKey(ctx, { ...call, when: "idle" })],
  ] as const)(
    "a %s that waits while its engine is destroyed does not touch the next engine of the user",
    async (operation, act) => {
      const userId = `successor of ${operation}`;
      await provisionEngine(house.ctx, toCall(house, userId));
      // Own holds bypass the gate, like a call that had closed the gate before.
      const bypassing = { ...house.ctx, holds: new EngineHolds() };
      const closeGate = house.ctx.holds.closeGate.bind(house.ctx.holds);
      const gating = vi.spyOn(house.ctx.holds, "closeGate").mockImplementationOnce(async (...args) => {
        const gate = await closeGate(...args);
        await destroyEngine(bypassing, toCall(house, userId));
        await provisionEngine(bypassing, toCall(house, userId));
        return gate;
      });
      await expect(act(house.ctx, toCall(house, userId))).rejects.toMatchObject({
        reason: "ENGINE_NOT_FOUND",
      });
      expect(gating).toHaveBeenCalledOnce();
      gating.mockRestore();
      const next = await getEngine(house.ctx, toCall(house, userId));
      expect(next).toMatchObject({ status: "running", desired: "running", generation: 1 });
    },
  );

  test.each([
    ["stop", stopEngine, startEngine, "running"],
    ["start", startEngine, stopEngine, "stopped"],
    ["restart", restartEngine, stopEngine, "stopped"],
  ] as const)(
    "a %s that is retried with its idempotency key does not undo a later operation",
    async (operation, act, undo, status) => {
      const userId = `again ${operation}`;
      const { engine } = await provisionEngine(house.ctx, toCall(house, userId));
      if (operation === "start") await stopEngine(house.ctx, toCall(house, userId));
      await act(house.ctx, toCall(house, userId));
      await undo(house.ctx, toCall(house, userId));
      const idempotency = { ...NO_RECORD, resumed: true, subject: engine.engineId };
      using held =
        status === "running"
          ? await acquireEngine(house.ctx, { ...toCall(house, userId), timeoutMs: 60_000 })
          : undefined;
      const call = { ...toCall(house, userId, idempotency), whenBusy: "interrupt" as const };
      const answer = act(house.ctx, call);
      if (operation === "stop") expect(await answer).toMatchObject({ status });
      else await expect(answer).rejects.toMatchObject({ reason: "ENGINE_STOPPED" });
      expect(await getEngine(house.ctx, toCall(house, userId))).toMatchObject({ status });
      expect(held?.interrupted.aborted ?? false).toBe(false);
      const gone = { ...idempotency, subject: randomUUID() };
      await expect(act(house.ctx, toCall(house, userId, gone))).rejects.toMatchObject({
        reason: "ENGINE_NOT_FOUND",
      });
    },
  );

  test("a call during a restart waits and gets the new process", async () => {
    await provisionEngine(house.ctx, toCall(house, "ida"));
    let acquiring: Promise<HeldEngine> | undefined;
    house.runtime.onCall = ({ call, when }) => {
      if (call !== "stop" || when !== "before") return;
      acquiring = acquireEngine(house.ctx, { ...toCall(house, "ida"), timeoutMs: 60_000 });
    };
    const { generation } = await restartEngine(house.ctx, toCall(house, "ida"));
    house.runtime.onCall = undefined;
    expect(generation).toBe(2);
    using held = await (acquiring ?? Promise.reject(new Error("the restart stopped no container")));
    expect(held.generation).toBe(2);
  });

  test("paging lists every engine once, also while others are added", async () => {
    await using own = await openSite();
    await using other = await openHouse(own);
    const users = ["ada", "ben", "cyd", "dan", "eve"];
    for (const userId of users) await provisionEngine(other.ctx, toCall(other, userId));
    const late = ["fay", "gus"];
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await listEngines(other.ctx, { productId: other.productId, limit: 2, cursor });
      seen.push(...page.items.map((engine) => engine.userId));
      const userId = late.shift();
      if (userId !== undefined) await provisionEngine(other.ctx, toCall(other, userId));
      cursor = page.nextCursor ?? undefined;
    } while (cursor !== undefined);
    expect(seen).toEqual([...users, "fay", "gus"]);
  });

  test("every change has its audit row, and the chain verifies", async () => {
    await using own = await openSite();
    await using other = await openHouse(own);
    const call = toCall(other, "ada");
    await provisionEngine(other.ctx, call);
    await stopEngine(other.ctx, call);
    await startEngine(other.ctx, call);
    await restartEngine(other.ctx, call);
    await rotateEngineKey(other.ctx, { ...call, when: "now" });
    await revealEngineKey(other.ctx, call);
    await destroyEngine(other.ctx, call);
    const { items } = await listAudit(other.ctx, { scope: other.productId, limit: 100 });
    expect(items.map(({ action }) => action).toReversed()).toEqual([
      "engine.provision_requested",
      "engine.provisioned",
      "engine.stop_requested",
      "engine.stopped",
      "engine.start_requested",
      "engine.started",
      "engine.restart_requested",
      "engine.started",
      "engine_key.rotate_requested",
      "engine_key.rotated",
      "engine_key.revealed",
      "engine.destroy_requested",
      "engine.destroyed",
    ]);
    const verdict = await verifyAudit(other.ctx, { scope: other.productId });
    expect(verdict).toMatchObject({ ok: true, checked: items.length });
  });
});

describe("failures", () => {
  test("a first boot that exits returns the last log lines, frees its port, and can be provisioned again with a new key", async () => {
    house.runtime.onCall = async ({ call, when, input }) => {
      if (call !== "start" || when !== "after") return;
      const container = site.daemon.containers.get(String(input));
      if (container === undefined) return;
      site.daemon.write(container, "stderr", "cannot read the catalog");
      await site.daemon.end(container, 78);
    };
    const failed = await provisionEngine(house.ctx, toCall(house, "kai")).catch((error: unknown) => error);
    house.runtime.onCall = undefined;
    expect(failed).toMatchObject({ reason: "BOOT_FAILED" });
    expect(String(failed)).toMatch(/exit code 78[\s\S]*cannot read the catalog/);
    const row = await findEngine(house.ctx.db, { productId: house.productId, userId: "kai" });
    expect(row).toMatchObject({ status: "failed", hostPort: null, nextRestartAt: null });
    expect(containersOf(row?.id ?? "")).toEqual([]);
    const again = await provisionEngine(house.ctx, toCall(house, "kai"));
    expect(again.engine).toMatchObject({ status: "running", engineId: row?.id });
  });

  test("an engine that never gets ready fails with the last health answer", async () => {
    await using slow = await openSite({ config: { bootTimeoutMs: 300, healthTimeoutMs: 100 } });
    await using other = await openHouse(slow);
    other.runtime.onCall = ({ call, when, input }) => {
      if (call !== "start" || when !== "after") return;
      slow.daemon.containers.get(String(input))?.engine?.pause();
    };
    await expect(provisionEngine(other.ctx, toCall(other, "slow"))).rejects.toMatchObject({
      reason: "BOOT_TIMEOUT",
      message: expect.stringContaining("no answer within 100 ms"),
    });
  });

  test("a missing image is IMAGE_UNAVAILABLE, and the engine can be provisioned again once the image exists", async () => {
    const images = new Set<string>();
    await using bare = await openSite({ daemon: new MemoryDaemon({ images }) });
    await using other = await openHouse(bare);
    await expect(provisionEngine(other.ctx, toCall(other, "lou"))).rejects.toMatchObject({
      reason: "IMAGE_UNAVAILABLE",
    });
    images.add(toDefaultImage(bare.config));
    expect((await provisionEngine(other.ctx, toCall(other, "lou"))).engine.status).toBe("running");
  });

  test("a host port that another program holds is avoided, and the engine gets another one", async () => {
    // Ports are chosen at random: with one try per port, chance alone hardly ever chooses each port once.
    const ports = 8;
    await using small = await openSite({ ports });
    await using other = await openHouse(small);
    for (let held = 1; held < ports; held += 1) other.runtime.failNext("start", "port_taken");
    const { engine } = await provisionEngine(other.ctx, toCall(other, "max"));
    expect(engine.status).toBe("running");
    const asked = other.runtime.calls.flatMap(({ call, input }) =>
      call === "ensure" ? [(input as ContainerSpec).hostPort] : [],
    );
    expect(asked).toHaveLength(ports);
    expect(new Set(asked).size, "no port was tried again").toBe(ports);
    expect(small.daemon.containers.size).toBe(1);
  });

  test("an image that is not allowed is refused before anything is written", async () => {
    await expect(
      provisionEngine(house.ctx, { ...toCall(house, "mia"), image: "elsewhere/miner:1" }),
    ).rejects.toMatchObject({ reason: "IMAGE_NOT_ALLOWED" });
    expect(await findEngine(house.ctx.db, { productId: house.productId, userId: "mia" })).toBeUndefined();
  });

  test("an unreachable runtime refuses a provision without a trace, and running engines do not change", async () => {
    await provisionEngine(house.ctx, toCall(house, "nat"));
    house.runtime.unreachable(true);
    await expect(provisionEngine(house.ctx, toCall(house, "new"))).rejects.toMatchObject({
      reason: "RUNTIME_UNREACHABLE",
    });
    await expect(stopEngine(house.ctx, toCall(house, "nat"))).rejects.toMatchObject({
      reason: "RUNTIME_UNREACHABLE",
    });
    expect(await getEngine(house.ctx, toCall(house, "nat"))).toMatchObject({ status: "stopping" });
    house.runtime.unreachable(false);
    expect(await stopEngine(house.ctx, toCall(house, "nat"))).toMatchObject({ status: "stopped" });
    expect(await findEngine(house.ctx.db, { productId: house.productId, userId: "new" })).toBeUndefined();
  });

  test("another daemon at the same address is RUNTIME_CHANGED", async () => {
    await house.runtime.markInstance();
    house.runtime.loseMarker();
    await expect(provisionEngine(house.ctx, toCall(house, "odd"))).rejects.toMatchObject({
      reason: "RUNTIME_CHANGED",
    });
    await house.runtime.markInstance();
  });

  test("absence at a daemon without our marker changes nothing, and work continues once our daemon is back", async () => {
    await using ours = await openSite();
    await using other = await openHouse(ours);
    await other.runtime.markInstance();
    const { engine } = await provisionEngine(other.ctx, toCall(other, "far"));
    const { daemon } = ours;
    const kept = { containers: new Map(daemon.containers), volumes: new Map(daemon.volumes) };
    const change = (to: typeof kept) => {
      daemon.containers.clear();
      daemon.volumes.clear();
      for (const [id, container] of to.containers) daemon.containers.set(id, container);
      for (const [name, volume] of to.volumes) daemon.volumes.set(name, volume);
    };
    change({ containers: new Map(), volumes: new Map() });
    other.runtime.loseMarker();
    expect(await other.ctx.reconciler.observeNow(engine.engineId)).toMatchObject({
      status: "running",
      generation: 1,
    });
    await expect(destroyEngine(other.ctx, toCall(other, "far"))).rejects.toMatchObject({
      reason: "RUNTIME_CHANGED",
    });
    expect(await findEngineById(other.ctx.db, engine.engineId)).toMatchObject({ status: "destroying" });
    change(kept);
    await other.runtime.markInstance();
    expect(await destroyEngine(other.ctx, toCall(other, "far"))).toMatchObject({ engineId: engine.engineId });
    expect(daemon.volumes.size).toBe(0);
  });

  test("a partly used restart budget is whole again after ten minutes without a restart", async () => {
    const { engine } = await provisionEngine(house.ctx, toCall(house, "sam"));
    const patch = { restartAttempts: 2, bootStartedAt: afterMs(-700_000) };
    await updateEngineIf(house.ctx.db, { id: engine.engineId }, patch);
    house.ctx.reconciler.resync(engine.engineId);
    await expect
      .poll(async () => (await findEngineById(house.ctx.db, engine.engineId))?.restartAttempts)
      .toBe(0);
  });

  test("a call that waits for an engine does not poll an unreachable runtime in a tight loop", async () => {
    await provisionEngine(house.ctx, toCall(house, "tess"));
    await stopEngine(house.ctx, toCall(house, "tess"));
    house.runtime.unreachable(true);
    await startEngine(house.ctx, toCall(house, "tess")).catch(() => undefined);
    const callsBefore = house.runtime.calls.length;
    const waiting = acquireEngine(house.ctx, { ...toCall(house, "tess"), timeoutMs: 1_200 });
    await expect(waiting).rejects.toMatchObject({ reason: "DEADLINE_EXCEEDED" });
    expect(house.runtime.calls.length - callsBefore).toBeLessThan(10);
    house.runtime.unreachable(false);
    expect(await startEngine(house.ctx, toCall(house, "tess"))).toMatchObject({ status: "running" });
  });

  test("a pruned image is pulled again by its name, if the name still resolves to the same id", async () => {
    const { engine } = await provisionEngine(house.ctx, toCall(house, "uma"));
    await stopEngine(house.ctx, toCall(house, "uma"));
    for (const container of containersOf(engine.engineId)) await site.daemon.remove(container);
    house.runtime.failNext("ensure", "image_missing");
    expect(await startEngine(house.ctx, toCall(house, "uma"))).toMatchObject({ status: "running" });
  });

  test("a start with a missing volume fails, and creates no empty volume", async () => {
    const { engine } = await provisionEngine(house.ctx, toCall(house, "pat"));
    await stopEngine(house.ctx, toCall(house, "pat"));
    for (const container of containersOf(engine.engineId)) await site.daemon.remove(container);
    house.runtime.loseVolume(`engine-data-${engine.engineId}`);
    await expect(startEngine(house.ctx, toCall(house, "pat"))).rejects.toMatchObject({
      reason: "VOLUME_MISSING",
    });
    expect(site.daemon.volumes.has(`engine-data-${engine.engineId}`)).toBe(false);
  });

  test("a crashed engine restarts after a backoff, and one that keeps crashing is given up and frees its port", async () => {
    const backoff = { restartBackoffBaseMs: 600_000, restartBackoffMaxMs: 600_000, restartMaxAttempts: 2 };
    await using own = await openSite({ config: { ...backoff, healthTimeoutMs: 60_000 } });
    await using other = await openHouse(own);
    const { ctx, runtime } = other;
    const { engineId: id } = (await provisionEngine(ctx, toCall(other, "quinn"))).engine;
    const reconcile = async () => {
      await ctx.reconciler.reconcile(id);
      return findEngineById(ctx.db, id);
    };
    const reconcileAfterBackoff = async () => {
      await updateEngineIf(ctx.db, { id }, { nextRestartAt: orchNow });
      return reconcile();
    };
    const waiting = { status: "failed", nextRestartAt: expect.any(String), hostPort: expect.any(Number) };
    await runtime.crash(id, { exitCode: 9 });
    expect(await reconcile()).toMatchObject(waiting);
    expect(await reconcileAfterBackoff()).toMatchObject({ status: "running", generation: 2 });
    runtime.onCall = async ({ call, when, input }) => {
      const container = own.daemon.containers.get(String(input));
      if (call === "start" && when === "after" && container !== undefined) await own.daemon.end(container, 1);
    };
    await runtime.crash(id);
    expect(await reconcile()).toMatchObject(waiting);
    expect(await reconcileAfterBackoff()).toMatchObject({
      status: "failed",
      statusReason: expect.stringMatching(/^restarts_spent: /),
      nextRestartAt: null,
      hostPort: null,
    });
    runtime.onCall = undefined;
    expect(await startEngine(ctx, toCall(other, "quinn"))).toMatchObject({ status: "running" });
  });

  test("a restart by the daemon moves the generation", async () => {
    const { engine } = await provisionEngine(house.ctx, toCall(house, "rae"));
    await house.runtime.restart(engine.engineId);
    await house.ctx.reconciler.reconcile(engine.engineId);
    expect(await findEngineById(house.ctx.db, engine.engineId)).toMatchObject({
      status: "running",
      generation: 2,
    });
  });

  test("a process that the daemon restarted gets the whole boot timeout, and callers wait for it", async () => {
    let isReady = true;
    const daemon = new MemoryDaemon({
      handler: (observation, environment) => {
        const answer = answerAsEngine(observation, environment);
        return (request, response) => {
          if (isReady) answer(request, response);
          else response.writeHead(503).end();
        };
      },
    });
    await using slow = await openSite({ daemon, config: { bootTimeoutMs: 600_000 } });
    await using other = await openHouse(slow);
    const { engine } = await provisionEngine(other.ctx, toCall(other, "slow"));
    isReady = false;
    await other.runtime.restart(engine.engineId);
    for (let events = 0; events < 5; events += 1) other.ctx.reconciler.onRuntimeEvent(engine.engineId);
    await expect
      .poll(async () => (await getEngine(other.ctx, toCall(other, "slow"))).status)
      .toBe("starting");
    // The engine gets ready only once its caller waits.
    const waitForReconcile = async (engineId: string) => {
      isReady = true;
      return other.ctx.reconciler.waitForReconcile(engineId);
    };
    const ctx = { ...other.ctx, reconciler: { waitForReconcile } };
    using held = await acquireEngine(ctx, { ...toCall(other, "slow"), timeoutMs: 60_000 });
    expect(isReady).toBe(true);
    expect(held.generation).toBe(2);
    const row = await findEngineById(other.ctx.db, engine.engineId);
    expect(row).toMatchObject({ status: "running", restarts: 1, restartAttempts: 0, healthFailures: 0 });
  });

  test("when every port is in use, provision throws PORT_EXHAUSTION and leaves no row", async () => {
    await using small = await openSite({ ports: 1 });
    await using other = await openHouse(small);
    await provisionEngine(other.ctx, toCall(other, "one"));
    await expect(provisionEngine(other.ctx, toCall(other, "two"))).rejects.toMatchObject({
      reason: "PORT_EXHAUSTION",
    });
    expect(await findEngine(other.ctx.db, { productId: other.productId, userId: "two" })).toBeUndefined();
  });
});
