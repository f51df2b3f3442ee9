import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ContainerSpec, EngineRuntime } from "../../../server/runtime/engine-runtime.ts";
import { isDockerAvailable } from "../../support/docker-available.ts";
import { openDockerSubject, type DockerSubject } from "../../support/runtime-docker-subject.ts";
import { ask, boot, failureOf, observeOne, untilHealthy } from "../../support/runtime-harness.ts";
import { FIXTURE_KEY, FIXTURE_KEY_HASH } from "../../support/runtime-spec.ts";

interface About {
  uid: number;
  environment: Record<string, string>;
  status: string;
  mounts: string;
  init: string;
  dataOwner: number;
  catalog: string[];
}

describe.skipIf(!isDockerAvailable())("a Docker container of an engine", () => {
  const instanceId = `container-${randomUUID()}`;
  let subject: DockerSubject;
  let runtime: EngineRuntime;
  let spec: ContainerSpec;
  let containerId: string;

  beforeAll(async () => {
    subject = await openDockerSubject();
    await writeFile(join(subject.catalogPath, "core_soul.json"), "{}");
    runtime = await subject.open(instanceId);
    spec = await subject.makeSpec({
      stopGraceSeconds: 17,
      limits: { memoryMb: 192, cpus: 0.5, pids: 48, readOnly: false, capAdd: [], user: null },
      environment: { ANTHROPIC_API_KEY: "provider key = with / odd & characters" },
    });
    containerId = await boot(runtime, spec);
  });

  afterAll(async () => {
    await runtime.removeInstance();
    await runtime[Symbol.asyncDispose]();
    await subject.close();
  });

  const inspect = (id = containerId) => subject.fixture.docker.getContainer(id).inspect();
  const about = async (of = spec) => (await ask(of, "/about")) as About;

  it("has a name and labels that say which engine and installation it belongs to", async () => {
    const { Name, Config } = await inspect();
    expect(Name).toBe(`/engine-${spec.engineId}-1`);
    expect(Config.Labels).toEqual({
      "enginehouse.instance": instanceId,
      "enginehouse.engine": spec.engineId,
      "enginehouse.incarnation": "1",
      "enginehouse.fencing-token": "7",
      "enginehouse.spec": "spec-hash",
    });
    const volume = await subject.fixture.docker.getVolume(spec.volumeName).inspect();
    expect(volume.Labels).toEqual({
      "enginehouse.instance": instanceId,
      "enginehouse.engine": spec.engineId,
    });
    expect((await inspect()).Image).toBe(spec.imageId);
  });

  it("has the specified environment, with the engine key's hash and never the key", async () => {
    const { environment } = await about();
    expect(environment).toMatchObject(spec.environment);
    const { HOSTNAME, ...rest } = environment;
    expect(HOSTNAME).toBe(containerId.slice(0, 12));
    expect(Object.keys(rest).sort()).toEqual(
      ["PATH", "HOME", "LANG", ...Object.keys(spec.environment)].sort(),
    );
    expect(environment["ENGINE_KEY_HASH"]).toBe(FIXTURE_KEY_HASH);
    expect(JSON.stringify(await inspect())).not.toContain(FIXTURE_KEY);
  });

  it("can read and write its volume at /data as the image's user", async () => {
    const mount = (await inspect()).Mounts.find(({ Destination }) => Destination === "/data");
    expect(mount).toMatchObject({ Type: "volume", Name: spec.volumeName, RW: true });
    const { uid, dataOwner } = await about();
    expect(uid).toBe(10001);
    expect(dataOwner).toBe(10001);
    expect(await ask(spec, "/write?path=/data/brain.sqlite&text=x")).toBe("ok");
  });

  it("can only read the catalog at /catalog", async () => {
    const mount = (await inspect()).Mounts.find(({ Destination }) => Destination === "/catalog");
    expect(mount).toMatchObject({ Type: "bind", Source: subject.catalogPath, RW: false });
    expect((await about()).catalog).toEqual(["core_soul.json"]);
    expect(await ask(spec, "/write?path=/catalog/intruder&text=x")).toBe("EROFS");
  });

  it("has /tmp and /run in memory", async () => {
    const { mounts } = await about();
    expect(mounts).toMatch(/^tmpfs \/tmp tmpfs \S*nosuid/m);
    expect(mounts).toMatch(/^tmpfs \/run tmpfs \S*nosuid/m);
    expect(await ask(spec, "/write?path=/tmp/x&text=x")).toBe("ok");
    expect(await ask(spec, "/write?path=/run/x&text=x")).toBe("ok");
  });

  it("is on the engines' network only, and reaches no other container there", async () => {
    const { NetworkSettings } = await inspect();
    expect(Object.keys(NetworkSettings.Networks)).toEqual([subject.network]);
    const network = await subject.fixture.docker.getNetwork(subject.network).inspect();
    expect(network).toMatchObject({
      Driver: "bridge",
      Options: { "com.docker.network.bridge.enable_icc": "false" },
      Labels: { "enginehouse.instance": instanceId },
    });
    const neighbour = await subject.makeSpec();
    const neighbourId = await boot(runtime, neighbour);
    const address = (await inspect(neighbourId)).NetworkSettings.Networks[subject.network]?.IPAddress;
    expect(address).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
    expect(await ask(spec, `/connect?host=${address}&port=8000`)).toBe(false);
    // The fixture engine's connection attempt has a deadline, so a slow machine needs more than one.
    await expect.poll(() => ask(spec, "/connect?host=127.0.0.1&port=8000")).toBe(true);
  });

  it("is published on the loopback address only", async () => {
    const { HostConfig, NetworkSettings } = await inspect();
    const binding = [{ HostIp: "127.0.0.1", HostPort: String(spec.hostPort) }];
    expect(HostConfig.PortBindings).toEqual({ "8000/tcp": binding });
    expect(NetworkSettings.Ports).toEqual({ "8000/tcp": binding });
    const outside = Object.values(networkInterfaces())
      .flat()
      .find((entry) => entry?.family === "IPv4" && !entry.internal);
    if (outside !== undefined) {
      await expect(fetch(`http://${outside.address}:${spec.hostPort}/health`)).rejects.toThrow();
    }
  });

  it("is restarted by the daemon after a crash, and the restart is counted", async () => {
    expect((await inspect()).HostConfig.RestartPolicy).toMatchObject({ Name: "unless-stopped" });
    const fragile = await subject.makeSpec();
    await boot(runtime, fragile);
    const before = await observeOne(runtime, fragile.engineId);
    await ask(fragile, "/exit?code=3");
    await expect.poll(async () => (await observeOne(runtime, fragile.engineId)).restartCount).toBe(1);
    await untilHealthy(fragile);
    const after = await observeOne(runtime, fragile.engineId);
    expect(after).toMatchObject({ containerId: before.containerId, state: "running", exitCode: null });
    expect(after.startedAt).not.toBe(before.startedAt);
  });

  it("is limited in memory, processors and processes", async () => {
    const { HostConfig } = await inspect();
    expect(HostConfig).toMatchObject({
      Memory: 192 * 1024 * 1024,
      MemorySwap: 192 * 1024 * 1024,
      NanoCpus: 500_000_000,
      PidsLimit: 48,
      LogConfig: { Type: "json-file", Config: { "max-size": "10m", "max-file": "3" } },
    });
  });

  it("has no capabilities, cannot get any, and has an init process", async () => {
    const { HostConfig } = await inspect();
    expect(HostConfig).toMatchObject({ Init: true, Privileged: false, CapDrop: ["ALL"] });
    const { status, init } = await about();
    expect(statusOf(status, "CapEff")).toBe("0000000000000000");
    expect(statusOf(status, "CapBnd")).toBe("0000000000000000");
    expect(statusOf(status, "NoNewPrivs")).toBe("1");
    expect(init).toContain("init");
  });

  it("is stopped by SIGTERM, with the grace of its spec also when the daemon shuts down", async () => {
    const { Config } = await inspect();
    expect(Config).toMatchObject({ StopSignal: "SIGTERM", StopTimeout: 17 });
    const ending = await subject.makeSpec();
    const endingId = await boot(runtime, ending);
    await runtime.stop(endingId, 10);
    const lines = await runtime.logs(endingId, 10);
    expect(lines.map(({ line }) => line)).toContain("got SIGTERM");
  });

  it("can have a read-only root file system, another user and single capabilities", async () => {
    const strict = await subject.makeSpec({
      limits: { ...spec.limits, readOnly: true, capAdd: ["NET_BIND_SERVICE"], user: "0:0" },
    });
    await boot(runtime, strict);
    const { uid, status } = await about(strict);
    expect(uid).toBe(0);
    expect(statusOf(status, "CapBnd")).toBe("0000000000000400");
    expect(await ask(strict, "/write?path=/engine/x&text=x")).toBe("EROFS");
    expect(await ask(strict, "/write?path=/tmp/x&text=x")).toBe("ok");
  });

  it("is not restarted by the daemon after a stop, even if it did not run when it was stopped", async () => {
    const idle = await subject.makeSpec();
    const { containerId: idleId } = await runtime.ensure(idle);
    await runtime.stop(idleId, 0);
    expect((await inspect(idleId)).HostConfig.RestartPolicy).toMatchObject({ Name: "no" });
    await runtime.start(idleId);
    const { HostConfig } = await inspect(idleId);
    expect(HostConfig.RestartPolicy).toMatchObject({ Name: "unless-stopped" });
    // Changing the restart policy keeps the limits.
    expect(HostConfig).toMatchObject({ Memory: 256 * 1024 * 1024, PidsLimit: 64, NanoCpus: 1e9 });
  });

  it("is refused if the catalog folder is missing, and the daemon does not create the folder", async () => {
    const lost = await subject.makeSpec({ catalogPath: join(subject.catalogPath, "missing") });
    expect(await failureOf(runtime.ensure(lost))).toBe("refused");
  });

  it("is observed as out of memory after the kernel killed it for that", async () => {
    const small = await subject.makeSpec({ limits: { ...spec.limits, memoryMb: 64 } });
    const smallId = await boot(runtime, small);
    // Otherwise the daemon restarts the container and loses how the first process ended.
    await subject.fixture.docker.getContainer(smallId).update({ RestartPolicy: { Name: "no" } });
    await expect
      .poll(async () => {
        // /tmp counts as memory of the container.
        await ask(small, `/fill?path=/tmp/fill&megabytes=128`, 2_000);
        return observeOne(runtime, small.engineId);
      })
      .toMatchObject({ state: "exited", oomKilled: true, exitCode: 137 });
  });
});

/** The value of a field of /proc/<pid>/status. */
function statusOf(text: string, field: string): string | undefined {
  return new RegExp(`^${field}:\\s+(\\S+)`, "m").exec(text)?.[1];
}
