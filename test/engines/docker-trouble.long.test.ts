import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findEngine, type EngineRow } from "../../db/engines.ts";
import { listAudit } from "../../server/audit/list-audit.ts";
import { destroyEngine } from "../../server/engines/operations/destroy-engine.ts";
import { getEngine } from "../../server/engines/operations/get-engine.ts";
import { provisionEngine } from "../../server/engines/operations/provision-engine.ts";
import { restartEngine } from "../../server/engines/operations/restart-engine.ts";
import { startEngine } from "../../server/engines/operations/start-engine.ts";
import { stopEngine } from "../../server/engines/operations/stop-engine.ts";
import { isDockerAvailable } from "../support/docker-available.ts";
import { ask } from "../support/runtime-harness.ts";
import { DAEMON_SOCKET } from "../support/runtime-socket-proxy.ts";
import { openDockerHouse, type DockerHouse } from "./docker-house.ts";
import { toCall } from "./open-house.ts";

describe.skipIf(!isDockerAvailable() || !DAEMON_SOCKET)("engines on a Docker host in trouble", () => {
  let house: DockerHouse;
  beforeAll(async () => {
    house = await openDockerHouse();
  });
  afterAll(async () => {
    await house[Symbol.asyncDispose]();
  });

  const rowOf = async (userId: string): Promise<EngineRow> => {
    const row = await findEngine(house.ctx.db, { productId: house.productId, userId });
    if (row === undefined) throw new Error(`${userId} has no engine`);
    return row;
  };
  const untilRunning = async (userId: string, generation: number) =>
    expect
      .poll(async () => getEngine(house.ctx, toCall(house, userId)), { timeout: 90_000 })
      .toMatchObject({ status: "running", generation });
  const containersOf = async (engineId: string) =>
    house.docker.listContainers({ all: true, filters: { label: [`enginehouse.engine=${engineId}`] } });
  const containerOf = async (userId: string) => {
    const [container, ...others] = await containersOf((await rowOf(userId)).id);
    expect(others).toEqual([]);
    if (container === undefined) throw new Error(`${userId} has no container`);
    return container.Id;
  };
  /** Provisions an engine with a note in its volume. */
  const provisionWithNote = async (userId: string) => {
    await provisionEngine(house.ctx, toCall(house, userId));
    const row = await rowOf(userId);
    expect(await ask(row, `/note?text=${userId}`)).toBe("ok");
    return row;
  };
  const expectNote = async (userId: string) => expect(await ask(await rowOf(userId), "/read")).toBe(userId);
  const metadataOf = async (userId: string) => {
    const { items } = await listAudit(house.ctx, { scope: house.productId, userId, limit: 100 });
    return items.map(({ action, metadata }) => ({ action, ...metadata }));
  };
  const detach = async (containerId: string) =>
    house.docker.getNetwork(house.network).disconnect({ Container: containerId });
  /** Removes the engines' network as a pruning does, once nothing else uses it. */
  const pruneNetwork = async () => house.docker.getNetwork(house.network).remove();

  test("a stopped engine whose network was pruned starts in another container on the same volume", async () => {
    await provisionWithNote("pruned");
    const before = await containerOf("pruned");
    await stopEngine(house.ctx, toCall(house, "pruned"));
    await pruneNetwork();
    expect(await startEngine(house.ctx, toCall(house, "pruned"))).toMatchObject({
      status: "running",
      generation: 2,
      statusReason: null,
    });
    expect(await containerOf("pruned")).not.toBe(before);
    await expectNote("pruned");

    await stopEngine(house.ctx, toCall(house, "pruned"));
    await pruneNetwork();
    // A person makes a network of the same name, which has another id.
    await house.docker.createNetwork({ Name: house.network, Driver: "bridge" });
    await startEngine(house.ctx, toCall(house, "pruned"));
    await expectNote("pruned");
    // The labels say that the network belongs to nobody, so the service would keep it.
    await destroyEngine(house.ctx, toCall(house, "pruned"));
    await pruneNetwork();
  });

  test("a failed engine whose network was pruned is restarted by the service itself", async () => {
    const row = await provisionWithNote("crashed");
    const containerId = await containerOf("crashed");
    const network = house.docker.getNetwork(house.network);
    await house.docker.getContainer(containerId).update({ RestartPolicy: { Name: "no" } });
    house.proxy.holdAnswersTo(/events/);
    await house.docker.getContainer(containerId).kill();
    await network.remove();
    house.proxy.passAnswers();
    await untilRunning("crashed", 2);
    await expectNote("crashed");
    expect(row.volumeName).toBe((await rowOf("crashed")).volumeName);
  });

  test("an engine that was detached from its network while it was stopped starts in another container", async () => {
    await provisionWithNote("apart");
    await stopEngine(house.ctx, toCall(house, "apart"));
    await detach(await containerOf("apart"));
    expect(await startEngine(house.ctx, toCall(house, "apart"))).toMatchObject({ generation: 2 });
    await expectNote("apart");
  });

  test("a running engine that is detached from its network is noticed, and the reason is on record", async () => {
    await provisionWithNote("lonely");
    await detach(await containerOf("lonely"));
    await untilRunning("lonely", 2);
    await expectNote("lonely");
    const why = `the container is not attached to its network ${house.network}`;
    expect((await getEngine(house.ctx, toCall(house, "lonely"))).statusReason).toBe(`health_failed: ${why}`);
    expect(await metadataOf("lonely")).toContainEqual(
      expect.objectContaining({ action: "engine.boot_begun", why }),
    );
    expect(await restartEngine(house.ctx, toCall(house, "lonely"))).toMatchObject({ statusReason: null });
  });

  test("a network that publishes no port is refused by name, and not after the boot timeout", async () => {
    const name = `${house.network}-inside`;
    const network = await house.docker.createNetwork({ Name: name, Driver: "bridge", Internal: true });
    const ctx = { ...house.ctx, config: { ...house.ctx.config, engineNetwork: name } };
    await expect(provisionEngine(ctx, toCall(house, "inside"))).rejects.toMatchObject({
      reason: "BOOT_FAILED",
      message: expect.stringContaining(`the network ${name} is internal`),
    });
    await network.remove();
  });

  test("a policy with an internal network gives an engine that the service reaches, and nobody publishes", async () => {
    const call = { ...toCall(house, "enclosed"), policy: { network: "internal" } as const };
    const { engine } = await provisionEngine(house.ctx, call);
    expect(engine).toMatchObject({ status: "running", url: expect.stringMatching(/^http:\/\/10\.213\./) });
    expect(await ask(await rowOf("enclosed"), "/health", 2_000)).toBeUndefined();
    expect(await restartEngine(house.ctx, toCall(house, "enclosed"))).toMatchObject({ url: engine.url });
    await destroyEngine(house.ctx, toCall(house, "enclosed"));
  });

  test("a missing volume stays missing, whatever else is gone", async () => {
    const row = await provisionWithNote("bare");
    await stopEngine(house.ctx, toCall(house, "bare"));
    await house.docker.getContainer(await containerOf("bare")).remove();
    await house.docker.getVolume(row.volumeName).remove();
    await expect(startEngine(house.ctx, toCall(house, "bare"))).rejects.toMatchObject({
      reason: "VOLUME_MISSING",
    });
    await expect(house.docker.getVolume(row.volumeName).inspect()).rejects.toMatchObject({ statusCode: 404 });
  });

  test("a destroy that waits for somebody else's container says so, and continues once the volume is free", async () => {
    const row = await provisionWithNote("shared");
    const foreign = await house.docker.createContainer({
      name: `backup-of-${row.id}`,
      Image: house.image,
      HostConfig: { Binds: [`${row.volumeName}:/backup`] },
    });
    const cause = `the volume ${row.volumeName} is in use by the container backup-of-${row.id} (${foreign.id.slice(0, 12)})`;
    await expect(destroyEngine(house.ctx, toCall(house, "shared"))).rejects.toMatchObject({
      reason: "ENGINE_DESTROYING",
      message: expect.stringContaining(cause),
      retryAfterMs: expect.any(Number),
    });
    expect(await getEngine(house.ctx, toCall(house, "shared"))).toMatchObject({
      status: "destroying",
      statusReason: `runtime_refused: ${cause}: remove that container`,
    });
    await foreign.remove();
    await expect
      .poll(async () => findEngine(house.ctx.db, { productId: house.productId, userId: "shared" }))
      .toBeUndefined();
    await expect(house.docker.getVolume(row.volumeName).inspect()).rejects.toMatchObject({ statusCode: 404 });
  });

  test("an engine that ran out of memory says so on its row, in the audit log and in the log", async () => {
    const row = await provisionWithNote("hungry");
    // /tmp counts as memory of the container.
    expect(await ask(row, "/fill?path=/tmp/fill&megabytes=160")).toBeUndefined();
    await expect
      .poll(async () => getEngine(house.ctx, toCall(house, "hungry")))
      .toMatchObject({
        status: "running",
        statusReason: expect.stringMatching(
          /^health_failed: the engine ran out of memory: its limit is 96 MiB/,
        ),
      });
    expect(await metadataOf("hungry")).toContainEqual(
      expect.objectContaining({ why: expect.stringContaining("out of memory: its limit is 96 MiB") }),
    );
    await expect
      .poll(() => house.warnings)
      .toContainEqual({
        fields: { engineId: row.id, memoryMb: 96 },
        message: "an engine ran out of memory",
      });
  });
});
