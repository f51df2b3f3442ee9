import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDockerRuntime } from "../../server/runtime/docker-runtime.ts";
import type { EngineRuntime } from "../../server/runtime/engine-runtime.ts";
import { RuntimeFailure } from "../../server/runtime/engine-runtime.ts";
import { isDockerAvailable } from "../support/docker-available.ts";
import { openDockerSubject } from "../support/runtime-docker-subject.ts";
import type { DockerSubject } from "../support/runtime-docker-subject.ts";
import { ask, boot, failureOf, observeOne, recordEvents, untilHealthy } from "../support/runtime-harness.ts";
import { openTestRegistry } from "../support/runtime-registry.ts";
import { openSocketProxy } from "../support/runtime-socket-proxy.ts";
import type { SocketProxy } from "../support/runtime-socket-proxy.ts";

const SOCKET = (process.env["DOCKER_HOST"] ?? "unix:///var/run/docker.sock").replace("unix://", "");

describe.skipIf(!isDockerAvailable() || !SOCKET.startsWith("/"))("the docker runtime in trouble", () => {
  const instanceId = `faults-${randomUUID()}`;
  const warnings: { fields: object; message: string }[] = [];
  const infos: { fields: object; message: string }[] = [];
  const log = {
    info: (fields: object, message: string) => void infos.push({ fields, message }),
    warn: (fields: object, message: string) => void warnings.push({ fields, message }),
  };
  let subject: DockerSubject;
  let proxy: SocketProxy;
  let proxyPath: string;
  let runtime: EngineRuntime;
  /** The same, and it waits for answers that short only. */
  let impatient: EngineRuntime;
  /** The same instance past the proxy. */
  let direct: EngineRuntime;

  beforeAll(async () => {
    subject = await openDockerSubject();
    proxyPath = join(subject.catalogPath, "docker.sock");
    proxy = await openSocketProxy(proxyPath, SOCKET);
    direct = await subject.open(instanceId);
    const dockerHost = `unix://${proxyPath}`;
    const options = { instanceId, marked: false, dockerHost, log };
    runtime = await openDockerRuntime({ ...options, callTimeoutMs: 30_000 });
    impatient = await openDockerRuntime({ ...options, callTimeoutMs: 3_000 });
  });

  afterAll(async () => {
    await direct.removeInstance();
    await direct[Symbol.asyncDispose]();
    await runtime[Symbol.asyncDispose]();
    await impatient[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    await subject.close();
  });

  /** A pull that nobody waits for may succeed all the same. */
  const removeImage = async (image: string) => {
    await subject.fixture.docker
      .getImage(image)
      .remove({ force: true })
      .catch(() => undefined);
  };

  it("adopts what a create without an answer has made all the same", async () => {
    const spec = await subject.makeSpec();
    proxy.holdAnswersTo(/^POST .*\/containers\/create/);
    expect(await failureOf(impatient.ensure(spec))).toBe("unreachable");
    proxy.passAnswers();
    const made = await observeOne(direct, spec.engineId);
    expect(await runtime.ensure(spec)).toEqual({ containerId: made.containerId, created: false });
  });

  it("says unreachable of a stop without an answer, which ends the engine all the same", async () => {
    const spec = await subject.makeSpec();
    const containerId = await boot(runtime, spec);
    await impatient.start(containerId);
    proxy.holdAnswersTo(/./);
    const calls = [impatient.stop(containerId, 0), impatient.check()];
    expect(await Promise.all(calls.map(failureOf))).toEqual(["unreachable", "unreachable"]);
    proxy.passAnswers();
    await expect.poll(async () => (await direct.observe(spec.engineId))[0]?.state).toBe("exited");
    await runtime.stop(containerId, 1);
    await runtime.start(containerId);
    await untilHealthy(spec);
  });

  it("throws from events when the link is lost, and reads on in a new one", async () => {
    const spec = await subject.makeSpec();
    const containerId = await boot(direct, spec);
    for (const round of [1, 2]) {
      await using record = recordEvents(runtime);
      await expect
        .poll(async () => {
          await direct.pause(containerId);
          await direct.unpause(containerId);
          return record.events.length;
        })
        .toBeGreaterThan(0);
      proxy.cut();
      expect(await record.ended, `round ${round}`).toBeInstanceOf(RuntimeFailure);
      expect(await record.ended).toMatchObject({ kind: "unreachable" });
    }
  });

  it("opens without a daemon when the host is known, and refuses to guess it otherwise", async () => {
    await using away = await subject.openUnreachable();
    expect(away.host).toBe("docker:recorded");
    const dockerHost = `unix://${join(subject.catalogPath, "nothing.sock")}`;
    const opening = openDockerRuntime({ instanceId, marked: false, dockerHost, log });
    expect(await failureOf(opening)).toBe("unreachable");
    for (const unfit of ["ssh://host", "what is this"]) {
      expect(await failureOf(openDockerRuntime({ instanceId, marked: false, dockerHost: unfit, log }))).toBe(
        "refused",
      );
    }
  });

  it("marks no other daemon than the one on record, whichever answers by then", async () => {
    const dockerHost = process.env["DOCKER_HOST"];
    const given = { instanceId, marked: false, dockerHost, log };
    await using other = await openDockerRuntime({ ...given, host: "docker:another" });
    expect(await failureOf(other.markInstance())).toBe("changed");
    await using same = await openDockerRuntime({ ...given, host: direct.host });
    await same.markInstance();
    await same.check();
  });

  it("sends the environment in no URL, and quotes it in no failure", async () => {
    const secret = `sk-${randomUUID()}`;
    const spec = await subject.makeSpec({ environment: { OPENAI_API_KEY: secret } });
    await runtime.ensure(spec);
    const requests = proxy.asked();
    expect(requests).toContain(secret);
    const firstLines = requests.split("\n").filter((line) => line.includes("HTTP/1.1"));
    expect(firstLines.join("\n")).not.toContain(secret);
    const broken = await subject.makeSpec({ environment: { "": secret }, catalogPath: "relative" });
    const failure = await runtime.ensure(broken).catch((error: unknown) => error);
    expect(failure).toMatchObject({ kind: "refused" });
    expect(String(failure)).not.toContain(secret);
  });

  it("takes a foreign container's name for a conflict, and leaves it alone", async () => {
    const spec = await subject.makeSpec();
    const foreign = await subject.fixture.docker.createContainer({
      name: `engine-${spec.engineId}-1`,
      Image: spec.imageId,
    });
    try {
      expect(await failureOf(runtime.ensure(spec))).toBe("conflict");
      expect(await runtime.observe(spec.engineId)).toEqual([]);
      expect(await failureOf(runtime.stop(foreign.id, 0))).toBe("no_such_container");
      await runtime.remove(foreign.id);
      expect((await foreign.inspect()).State.Status).toBe("created");
    } finally {
      await foreign.remove();
    }
  });

  it("takes a foreign volume's name for a conflict, and leaves it alone", async () => {
    const spec = await subject.makeSpec();
    const foreign = await subject.fixture.docker.createVolume({ Name: spec.volumeName });
    try {
      expect(await failureOf(runtime.ensure(spec))).toBe("conflict");
      expect(await failureOf(runtime.removeData(spec.volumeName))).toBe("conflict");
      expect((await foreign.inspect()).Name).toBe(spec.volumeName);
    } finally {
      await foreign.remove();
    }
  });

  it("uses a network that is there, warns when it lets containers talk, and does not remove it", async () => {
    const name = `enginehouse-open-${randomUUID()}`;
    const network = await subject.fixture.docker.createNetwork({ Name: name, Driver: "bridge" });
    const ownId = `own-${randomUUID()}`;
    const dockerHost = `unix://${proxyPath}`;
    try {
      await using own = await openDockerRuntime({ instanceId: ownId, marked: false, dockerHost, log });
      const spec = await subject.makeSpec({ network: name });
      await boot(own, spec);
      expect(warnings).toContainEqual({
        fields: { network: name },
        message: expect.stringContaining("reach"),
      });
      await own.removeInstance();
      expect((await network.inspect()).Name).toBe(name);
    } finally {
      await network.remove();
    }
  });

  it("makes one network, however many engines and orchestrators need it at once", async () => {
    const network = `enginehouse-race-${randomUUID()}`;
    const specs = await Promise.all([1, 2, 3, 4].map(() => subject.makeSpec({ network })));
    const made = await Promise.all(
      specs.map((spec, index) => (index % 2 === 0 ? runtime : direct).ensure(spec)),
    );
    // An ambiguous name would show at start only.
    for (const { containerId } of made.slice(0, 2)) await direct.start(containerId);
    const networks = await subject.fixture.docker.listNetworks({ filters: { name: [network] } });
    expect(networks).toHaveLength(1);
  });

  it("pulls an image that is missing, once for all who wait, and says so in the log", async () => {
    await using registry = await openTestRegistry();
    const { image } = registry;
    try {
      const ids = await Promise.all([runtime.resolveImage(image), runtime.resolveImage(image)]);
      expect(ids[0]).toMatch(/^sha256:[0-9a-f]{64}$/);
      expect(ids[1]).toBe(ids[0]);
      const { RepoDigests } = await subject.fixture.docker.getImage(image).inspect();
      expect(await runtime.resolveImage(RepoDigests[0] ?? "")).toBe(ids[0]);
      expect(infos.filter(({ message }) => message === "pulling the image")).toHaveLength(1);
      expect(infos.map(({ message }) => message)).toContain("pulled the image");
    } finally {
      await subject.fixture.docker.getImage(image).remove({ force: true });
    }
  });

  it("says that an image is missing when its pull fails, at once or half-way, and when its name is none", async () => {
    await using registry = await openTestRegistry();
    expect(await failureOf(runtime.resolveImage(registry.brokenImage))).toBe("image_missing");
    expect(await failureOf(runtime.resolveImage(registry.image.replace("good", "absent")))).toBe(
      "image_missing",
    );
    for (const name of ["", "../containers/json", "a//b", "UPPER case", `sha256:${"1".repeat(64)}`]) {
      expect(await failureOf(runtime.resolveImage(name)), name).toBe("image_missing");
    }
  });

  it("gives a pull up when it is told to", async () => {
    await using registry = await openTestRegistry();
    await using _image = { [Symbol.asyncDispose]: () => removeImage(registry.image) };
    const abort = new AbortController();
    proxy.holdAnswersTo(/^POST .*\/images\/create/);
    const pull = failureOf(runtime.resolveImage(registry.image, abort.signal));
    await expect.poll(() => proxy.asked()).toContain("/images/create");
    abort.abort();
    expect(await pull).toBe("unreachable");
    proxy.passAnswers();
    proxy.cut();
  });

  it("leaves nobody waiting when it is closed in the middle of a pull", async () => {
    await using registry = await openTestRegistry();
    await using _image = { [Symbol.asyncDispose]: () => removeImage(registry.image) };
    const dockerHost = `unix://${proxyPath}`;
    const closing = await openDockerRuntime({ instanceId, marked: false, dockerHost, log });
    proxy.holdAnswersTo(/^POST .*\/images\/create/);
    const pull = failureOf(closing.resolveImage(registry.image));
    await closing[Symbol.asyncDispose]();
    expect(await pull).toBe("unreachable");
    proxy.passAnswers();
  });

  it("removes a container whose removal is already under way", async () => {
    const spec = await subject.makeSpec();
    const containerId = await boot(runtime, spec);
    await Promise.all([runtime.remove(containerId), direct.remove(containerId), runtime.remove(containerId)]);
    expect(await runtime.observe(spec.engineId)).toEqual([]);
    expect(await ask(spec, "/health")).toBeUndefined();
  });
});
