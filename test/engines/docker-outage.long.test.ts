import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findEngine, listEngineRows } from "../../db/engines.ts";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { listAudit } from "../../server/audit/list-audit.ts";
import { acceptRuntime } from "../../server/engines/operations/accept-runtime.ts";
import { destroyEngine } from "../../server/engines/operations/destroy-engine.ts";
import { provisionEngine } from "../../server/engines/operations/provision-engine.ts";
import { restartEngine } from "../../server/engines/operations/restart-engine.ts";
import { revealEngineKey } from "../../server/engines/operations/reveal-engine-key.ts";
import { rotateEngineKey } from "../../server/engines/operations/rotate-engine-key.ts";
import { startEngine } from "../../server/engines/operations/start-engine.ts";
import { stopEngine } from "../../server/engines/operations/stop-engine.ts";
import { isDockerAvailable } from "../support/docker-available.ts";
import { ask } from "../support/runtime-harness.ts";
import { DAEMON_SOCKET } from "../support/runtime-socket-proxy.ts";
import { openDockerHouse, type DockerHouse } from "./docker-house.ts";
import { toCall } from "./open-house.ts";

describe.skipIf(!isDockerAvailable() || !DAEMON_SOCKET)(
  "a Docker daemon that goes down, or loses the marker",
  () => {
    let house: DockerHouse;
    beforeAll(async () => {
      house = await openDockerHouse();
    });
    afterAll(async () => {
      await house[Symbol.asyncDispose]();
    });

    const call = (userId: string) => toCall(house, userId);
    const findRow = async (userId: string) =>
      findEngine(house.ctx.db, { productId: house.productId, userId });
    const patience = { timeout: 90_000 };
    const containerOf = async (userId: string) => {
      const label = [`enginehouse.engine=${(await findRow(userId))?.id}`];
      const [container] = await house.docker.listContainers({ all: true, filters: { label } });
      if (container === undefined) throw new Error(`${userId} has no container`);
      return house.docker.getContainer(container.Id);
    };
    const listStatuses = async () => {
      const rows = await Promise.all(["stop", "restart", "destroy", "rotate", "start", "new"].map(findRow));
      return rows.map((row) => row && { status: row.status, generation: row.generation });
    };
    const accept = async () =>
      acceptRuntime(house.ctx, { reason: "the volumes were pruned", idempotency: NO_RECORD });
    /** Ends the engine's container as a daemon does that goes down. */
    const endContainer = async (userId: string) => {
      const container = await containerOf(userId);
      await container.update({ RestartPolicy: { Name: "no" } });
      await container.kill();
    };

    test("what an answer promises during an outage happens once the daemon is back, and what it refuses leaves nothing", async () => {
      for (const userId of ["stop", "restart", "destroy", "rotate", "start"]) {
        await provisionEngine(house.ctx, call(userId));
      }
      await stopEngine(house.ctx, call("start"));
      const { apiKey: oldKey } = await revealEngineKey(house.ctx, call("rotate"));
      await house.takeDown();
      for (const wait of [true, false]) {
        await expect(provisionEngine(house.ctx, { ...call("new"), wait })).rejects.toMatchObject({
          reason: "RUNTIME_UNREACHABLE",
          message: "the runtime does not answer: nothing was written, so call again later",
        });
      }
      const onRecord = {
        reason: "RUNTIME_UNREACHABLE",
        message: expect.stringContaining("the request is on record and is carried out once"),
      };
      await expect(stopEngine(house.ctx, call("stop"))).rejects.toMatchObject(onRecord);
      await expect(restartEngine(house.ctx, call("restart"))).rejects.toMatchObject(onRecord);
      await expect(destroyEngine(house.ctx, call("destroy"))).rejects.toMatchObject(onRecord);
      const rotation = rotateEngineKey(house.ctx, { ...call("rotate"), when: "now" });
      await expect(rotation).rejects.toMatchObject(onRecord);
      await expect(startEngine(house.ctx, call("start"))).rejects.toMatchObject(onRecord);
      // The service is restarted during the outage too.
      await house.reopen();
      await house.bringBack();
      await expect
        .poll(listStatuses, patience)
        .toEqual([
          { status: "stopped", generation: 1 },
          { status: "running", generation: 2 },
          undefined,
          { status: "running", generation: 2 },
          { status: "running", generation: 2 },
          undefined,
        ]);
      expect((await revealEngineKey(house.ctx, call("rotate"))).apiKey).not.toBe(oldKey);
      expect(await provisionEngine(house.ctx, call("new"))).toMatchObject({ engine: { status: "running" } });
    });

    test("a provision that answered `provisioning` ends in running, although the daemon took the container down with it", async () => {
      for (const request of [/containers\/create/, /\/start/]) {
        const userId = `mid-${request.source.length}`;
        house.proxy.cutAnswersTo(request);
        const { engine, apiKey } = await provisionEngine(house.ctx, call(userId));
        expect(engine).toMatchObject({ status: "provisioning", generation: 1 });
        await house.takeDown();
        if (request.source.includes("start")) await endContainer(userId);
        await house.reopen();
        await house.bringBack();
        await expect.poll(async () => (await findRow(userId))?.status, patience).toBe("running");
        expect((await revealEngineKey(house.ctx, call(userId))).apiKey).toBe(apiKey);
      }
    });

    test("a provision with a deadline does not wait longer for a daemon that hangs", async () => {
      house.proxy.holdAnswersTo(/./);
      await expect(provisionEngine(house.ctx, { ...call("hung"), deadlineMs: 100 })).rejects.toMatchObject({
        reason: "RUNTIME_UNREACHABLE",
        message: expect.stringContaining("nothing was written"),
      });
      expect(await findRow("hung")).toBeUndefined();
      house.proxy.passAnswers();
      house.proxy.cut();
      expect(await provisionEngine(house.ctx, call("hung"))).toMatchObject({ engine: { status: "running" } });
    });

    test("an operator accepts a daemon whose marker was pruned: engines continue, and lost volumes are not made anew", async () => {
      await expect(accept()).rejects.toMatchObject({ reason: "RUNTIME_UNCHANGED" });
      for (const userId of ["kept", "moved", "lost"]) await provisionEngine(house.ctx, call(userId));
      expect(await ask((await findRow("moved")) ?? { hostPort: 0 }, "/note?text=moved")).toBe("ok");
      await house.docker.getVolume(house.markerName).remove();
      for (const userId of ["moved", "lost"]) await (await containerOf(userId)).remove({ force: true });
      await house.docker.getVolume((await findRow("lost"))?.volumeName ?? "").remove();
      await expect(provisionEngine(house.ctx, call("later"))).rejects.toMatchObject({
        reason: "RUNTIME_CHANGED",
        message: expect.stringContaining("an operator must correct or accept it"),
      });
      // A start finds the same and serves all the same, or nobody could accept the runtime.
      await house.reopen();
      await house.takeDown();
      await expect(accept()).rejects.toMatchObject({ reason: "RUNTIME_UNREACHABLE" });
      await house.bringBack();
      // Somebody else's volume with the marker's name is no marker, and is not taken over.
      const foreign = await house.docker.createVolume({ Name: house.markerName });
      await expect(provisionEngine(house.ctx, call("later"))).rejects.toMatchObject({
        reason: "RUNTIME_CHANGED",
      });
      await expect(accept()).rejects.toMatchObject({
        message: expect.stringContaining("another installation"),
      });
      await foreign.remove();

      const engines = (await listEngineRows(house.ctx.db, { productId: house.productId, limit: 100 })).length;
      expect(await accept()).toEqual({ runtimeHost: house.ctx.runtime.host, engines, volumesMissing: 1 });
      await expect
        .poll(async () => findRow("moved"), patience)
        .toMatchObject({ status: "running", generation: 2 });
      expect(await ask((await findRow("moved")) ?? { hostPort: 0 }, "/read")).toBe("moved");
      await expect
        .poll(async () => findRow("lost"), patience)
        .toMatchObject({ status: "failed", statusReason: expect.stringMatching(/^volume_missing: /) });
      expect(await findRow("kept")).toMatchObject({ status: "running", generation: 1 });
      expect(await provisionEngine(house.ctx, call("later"))).toMatchObject({
        engine: { status: "running" },
      });
      const { items } = await listAudit(house.ctx, {
        scope: "platform",
        action: "runtime.accepted",
        limit: 10,
      });
      expect(items).toEqual([
        expect.objectContaining({
          actor: expect.objectContaining({ kind: "operator", name: "olga" }),
          metadata: expect.objectContaining({ reason: "the volumes were pruned", volumesMissing: 1 }),
        }),
      ]);
      await expect(accept()).rejects.toMatchObject({ reason: "RUNTIME_UNCHANGED" });
    });
  },
);
