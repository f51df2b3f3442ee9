import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ContainerSpec, EngineRuntime } from "../../../server/runtime/engine-runtime.ts";
import { isDockerAvailable } from "../../support/docker-available.ts";
import { CAN_MAKE_HOSTS, openOutsideHost } from "../../support/outside-host.ts";
import { openDockerSubject, type DockerSubject } from "../../support/runtime-docker-subject.ts";
import { ask, boot, observeOne } from "../../support/runtime-harness.ts";

describe.skipIf(!isDockerAvailable())("what a Docker container of an engine may do", () => {
  const instanceId = `confinement-${randomUUID()}`;
  let subject: DockerSubject;
  let runtime: EngineRuntime;
  let spec: ContainerSpec;
  let containerId: string;

  beforeAll(async () => {
    subject = await openDockerSubject();
    runtime = await subject.open(instanceId);
    spec = await subject.makeSpec();
    containerId = await boot(runtime, spec);
  });

  afterAll(async () => {
    await runtime.removeInstance();
    await runtime[Symbol.asyncDispose]();
    await subject.close();
  });

  it("has limits for descriptors, core dumps and temporary files", async () => {
    const { limits, mounts } = (await ask(spec, "/about")) as { limits: string; mounts: string };
    expect(limits).toMatch(/^Max open files +4096 +4096 /m);
    expect(limits).toMatch(/^Max core file size +0 +0 /m);
    expect(mounts).toMatch(/^tmpfs \/tmp tmpfs \S*size=32768k/m);
    expect(mounts).toMatch(/^tmpfs \/run tmpfs \S*size=16384k/m);
    expect(await ask(spec, "/fill?path=/tmp/fill&megabytes=40")).toBe("ENOSPC");
  });

  it("shares no namespace with the host, and keeps the daemon's filters", async () => {
    const { HostConfig, AppArmorProfile } = await subject.fixture.docker.getContainer(containerId).inspect();
    expect(HostConfig).toMatchObject({
      IpcMode: "private",
      PidMode: "",
      UTSMode: "",
      UsernsMode: "",
      Privileged: false,
      SecurityOpt: ["no-new-privileges:true"],
    });
    expect(AppArmorProfile).not.toBe("unconfined");
    const { status } = (await ask(spec, "/about")) as { status: string };
    expect(HostConfig.Devices ?? []).toEqual([]);
    // 2: a seccomp filter is in force.
    expect(status).toMatch(/^Seccomp:\s+2$/m);
  });

  it("is refused with an image that runs as root, unless the engine is older or an operator names the user", async () => {
    const { docker } = subject.fixture;
    const source = await docker.createContainer({ Image: spec.imageId });
    const tag = `enginehouse-root-${randomUUID()}`;
    await source.commit({ repo: tag, changes: "USER 0:0" });
    await source.remove();
    try {
      const { Id: imageId } = await docker.getImage(tag).inspect();
      const rooted = await subject.makeSpec({ imageId });
      await expect(runtime.ensure(rooted)).rejects.toMatchObject({
        kind: "refused",
        message: expect.stringContaining("set ORCH_ENGINE_USER"),
      });
      expect(await runtime.observe(rooted.engineId)).toEqual([]);
      await boot(runtime, { ...rooted, refusesRoot: false });
      expect(await ask(rooted, "/about")).toMatchObject({ uid: 0 });
      await runtime.remove((await observeOne(runtime, rooted.engineId)).containerId);
      const named = await subject.makeSpec({ imageId, limits: { ...spec.limits, user: "10001:10001" } });
      await boot(runtime, named);
      expect(await ask(named, "/about")).toMatchObject({ uid: 10001 });
      await runtime.remove((await observeOne(runtime, named.engineId)).containerId);
    } finally {
      await docker.getImage(tag).remove({ force: true });
    }
  });

  it("reaches a listener on all addresses of the host without a firewall, and the probe says so", async () => {
    expect(await runtime.findOpenTargets(subject.network)).toContain("host");
    const filters = { label: ["enginehouse.probe"] };
    const left = await subject.fixture.docker.listContainers({ all: true, filters });
    expect(left.filter(({ Labels: labels }) => labels["enginehouse.instance"] === instanceId)).toEqual([]);
  });

  it("on an internal network answers the service at an address that stays, and reaches no other engine", async () => {
    const inside = await makeInternalSpec(subject);
    const { containerId: insideId } = await runtime.ensure(inside);
    const before = await observeOne(runtime, inside.engineId);
    const endpoint = before.endpoint ?? "";
    await runtime.start(insideId);
    await untilAnswers(endpoint);
    expect((await observeOne(runtime, inside.engineId)).defect).toBeNull();
    const network = await subject.fixture.docker.getNetwork(inside.network).inspect();
    expect(network).toMatchObject({ Internal: true });
    // The daemon publishes nothing.
    expect(await ask(inside, "/health", 2_000)).toBeUndefined();

    const neighbour = await makeInternalSpec(subject);
    const { containerId: neighbourId } = await runtime.ensure(neighbour);
    await runtime.start(neighbourId);
    const { endpoint: other } = await observeOne(runtime, neighbour.engineId);
    await untilAnswers(other ?? "");
    expect(await askAt(endpoint, `/connect?host=${URL.parse(other ?? "")?.hostname}&port=8000`)).toBe(false);

    await runtime.stop(insideId, 1);
    await runtime.start(insideId);
    await untilAnswers(endpoint);
    expect((await observeOne(runtime, inside.engineId)).endpoint).toBe(endpoint);
    const { HostConfig } = await subject.fixture.docker.getContainer(insideId).inspect();
    expect(HostConfig.Dns).toEqual(["127.0.0.1"]);
  });

  it.skipIf(!CAN_MAKE_HOSTS)("on an internal network reaches no other host", async () => {
    await using outside = await openOutsideHost();
    const inside = await makeInternalSpec(subject);
    await runtime.start((await runtime.ensure(inside)).containerId);
    const { endpoint } = await observeOne(runtime, inside.engineId);
    await untilAnswers(endpoint ?? "");
    const path = `/connect?host=${outside.address}&port=${outside.port}`;
    // An engine with a way out reaches the same listener.
    expect(await ask(spec, path)).toBe(true);
    expect(await askAt(endpoint ?? "", path)).toBe(false);
  });

  it("an internal network of another kind is refused by name", async () => {
    const inside = await makeInternalSpec(subject);
    const open = { ...inside, network: subject.network };
    await expect(runtime.ensure(open)).rejects.toMatchObject({
      kind: "refused",
      message: expect.stringContaining("has a way out, and the product's policy allows none"),
    });
    await expect(runtime.ensure({ ...inside, internalSubnet: "10.214.0.0/16" })).rejects.toMatchObject({
      kind: "refused",
      message: expect.stringContaining("ORCH_ENGINE_INTERNAL_SUBNET is 10.214.0.0/16"),
    });
  });
});

/** Networks of one daemon cannot share a subnet, so each test file has its own. */
async function makeInternalSpec(subject: DockerSubject): Promise<ContainerSpec> {
  const network = `${subject.network}_internal`;
  return subject.makeSpec({ network, internalSubnet: "10.215.0.0/16" });
}

async function untilAnswers(endpoint: string): Promise<void> {
  await expect.poll(() => askAt(endpoint, "/health"), { timeout: 30_000 }).toMatchObject({ status: "ok" });
}

/** undefined: no answer. */
async function askAt(endpoint: string, path: string): Promise<unknown> {
  try {
    const signal = AbortSignal.timeout(5_000);
    const response = await fetch(`${endpoint}${path}`, { signal, headers: { connection: "close" } });
    return await response.json();
  } catch {
    // The engine does not listen yet.
    return undefined;
  }
}
