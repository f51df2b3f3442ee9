import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { buildReferenceImage } from "../../server/runtime/docker/reference-image.ts";
import { isDockerAvailable } from "../support/docker-available.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { openIdempotencyWatch } from "./idempotency-watch.ts";
import { removeEverything } from "./remove-everything.ts";
import { ADMIN_KEY, callProcedure, startService } from "./spawn-service.ts";

const run = promisify(execFile);
const DOCKER_HOST = process.env["DOCKER_HOST"];
const quiet = { info: () => {}, warn: () => {} };

describe.skipIf(!isDockerAvailable())("the service over Docker", { timeout: 600_000 }, () => {
  test("a service killed during provision, rotate, restart and destroy loses nothing and leaves nothing behind", async () => {
    await using home = await openTempDir();
    await using database = await openTestDatabase();
    await using reservations = openIdempotencyWatch(database.url);
    const environment = {
      ORCH_DATA_DIR: home.path,
      ORCH_DATABASE_URL: database.url,
      ORCH_ADMIN_KEY: ADMIN_KEY,
      ORCH_ENGINE_BACKEND: "docker",
      ORCH_ENGINE_IMAGE: await buildReferenceImage({ dockerHost: DOCKER_HOST, log: quiet }),
      ORCH_ENGINE_NETWORK: `eh-test-${randomBytes(4).toString("hex")}`,
      ORCH_STOP_GRACE_S: "5",
      ...(DOCKER_HOST === undefined ? {} : { DOCKER_HOST }),
    };
    let service = await startService(environment);
    try {
      const registered = await callProcedure({ url: service.url, key: ADMIN_KEY }, "products.register", {
        slug: "acme",
        name: "Acme",
      });
      const key = String(registered.data["apiKey"]);
      /** Kills the service during the call, starts it again, and repeats the call. */
      const killDuring = async (procedure: string, input: Record<string, unknown>, delayMs: number) => {
        const keyed = { userId: "ada", idempotencyKey: `${procedure}-${delayMs}`, ...input };
        const cut = callProcedure({ url: service.url, key }, procedure, keyed).catch(() => undefined);
        await reservations.untilReserved(keyed.idempotencyKey);
        await new Promise((resolve) => setTimeout(resolve, delayMs));
        await service.signal("SIGKILL");
        await cut;
        service = await startService(environment);
        const retried = await callProcedure({ url: service.url, key }, procedure, keyed);
        expect(retried.status, `${procedure}: ${JSON.stringify(retried)}`).toBe(200);
        return retried.data;
      };
      const direct = async (apiKey: string) => {
        const { data } = await callProcedure({ url: service.url, key }, "engines.get", { userId: "ada" });
        const response = await fetch(`${String(data["url"])}/rpc`, {
          method: "POST",
          headers: { "x-engine-key": apiKey, "content-type": "application/json" },
          body: JSON.stringify({ method: "get_config", params: {} }),
        });
        return { status: response.status, body: (await response.json()) as { result?: { config: unknown } } };
      };

      const provisioned = await killDuring("engines.provision", {}, 350);
      await callProcedure({ url: service.url, key }, "rpc.setConfig", {
        userId: "ada",
        config: { kept: true },
      });
      const rotated = await killDuring("engineKeys.rotate", { when: "now" }, 450);
      expect((await direct(String(provisioned["apiKey"]))).status).toBe(401);
      expect((await direct(String(rotated["apiKey"]))).body.result?.config).toEqual({ kept: true });
      const restarted = await killDuring("engines.restart", {}, 300);
      expect(restarted).toMatchObject({ status: "running" });

      // When the engine's process dies in its container, Docker restarts it and the generation grows.
      const engineId = String(restarted["engineId"]);
      const { stdout } = await run("docker", [
        "ps",
        "-q",
        "--no-trunc",
        "--filter",
        `label=enginehouse.engine=${engineId}`,
      ]);
      const containerId = stdout.trim();
      expect(containerId).toMatch(/^[0-9a-f]{64}$/);
      const kill = "process.kill(1, 'SIGTERM')";
      await run("docker", ["exec", containerId, "/usr/local/bin/node", "-e", kill]).catch(() => undefined);
      await expect
        .poll(
          async () => (await callProcedure({ url: service.url, key }, "engines.get", { userId: "ada" })).data,
          // If the daemon's event is lost, the resync observes the engine after half a minute.
          { timeout: 120_000 },
        )
        .toMatchObject({ status: "running", generation: Number(restarted["generation"]) + 1 });

      expect(await killDuring("engines.destroy", {}, 200)).toEqual({ engineId, destroyed: true });
      const left = await run("docker", ["ps", "-aq", "--filter", `label=enginehouse.engine=${engineId}`]);
      expect(left.stdout).toBe("");
      const volumes = await run("docker", ["volume", "ls", "-q", "--filter", `name=engine-data-${engineId}`]);
      expect(volumes.stdout).toBe("");
      expect((await callProcedure({ url: service.url, key }, "audit.verify", {})).data).toMatchObject({
        ok: true,
      });
    } finally {
      await removeEverything(service);
    }
  });

  test("a development start without an image runs the reference engine", async () => {
    await using home = await openTempDir();
    await using database = await openTestDatabase();
    const service = await startService({
      ORCH_DATA_DIR: home.path,
      ORCH_DATABASE_URL: database.url,
      ORCH_ADMIN_KEY: ADMIN_KEY,
      ORCH_ENGINE_BACKEND: "docker",
      ORCH_ENGINE_NETWORK: `eh-test-${randomBytes(4).toString("hex")}`,
      ...(DOCKER_HOST === undefined ? {} : { DOCKER_HOST }),
    });
    try {
      const operator = { url: service.url, key: ADMIN_KEY };
      const { data } = await callProcedure(operator, "products.register", { slug: "acme", name: "Acme" });
      const acme = { url: service.url, key: String(data["apiKey"]) };
      await callProcedure(acme, "engines.provision", { userId: "ada" });
      const engine = await callProcedure(acme, "engines.get", { userId: "ada" });
      expect(engine.data).toMatchObject({ status: "running", image: expect.stringContaining("reference:") });
      await callProcedure(acme, "engines.destroy", { userId: "ada" });
    } finally {
      await removeEverything(service);
    }
  });
});
