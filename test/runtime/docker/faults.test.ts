import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDockerRuntime } from "../../../server/runtime/docker/runtime.ts";
import type { EngineRuntime } from "../../../server/runtime/engine-runtime.ts";
import { RuntimeFailure } from "../../../server/runtime/engine-runtime.ts";
import { isDockerAvailable } from "../../support/docker-available.ts";
import { openDockerSubject } from "../../support/runtime-docker-subject.ts";
import type { DockerSubject } from "../../support/runtime-docker-subject.ts";
import {
  ask,
  boot,
  failureOf,
  observeOne,
  recordEvents,
  untilHealthy,
} from "../../support/runtime-harness.ts";
import { openTestRegistry } from "../../support/runtime-registry.ts";
import { DAEMON_SOCKET, openSocketProxy } from "../../support/runtime-socket-proxy.ts";
import type { SocketProxy } from "../../support/runtime-socket-proxy.ts";

describe.skipIf(!isDockerAvailable() || !DAEMON_SOCKET)("the docker runtime in trouble", () => {
  const instanceId = `faults-${randomUUID()}`;
  const warnings: { fields: object; message: string }[] = [];
  const infos: { fields: object; message: string }[] = [];
  const log = {
    info: (fields: object, message: string) => void infos.push({ fields, message }),
    warn: (fields: object, message: string) => void warnings.push({ fields, message }),
  };
  const options = { instanceId, marked: false, log, callTimeoutMs: 60_000 };
  let subject: DockerSubject;
  let proxy: SocketProxy;
  /** The proxy's address. */
  let dockerHost: string;
  let runtime: EngineRuntime;
  /** The same instance past the proxy. */
  let direct: EngineRuntime;

  beforeAll(async () => {
    subject = await openDockerSubject();
    const proxyPath = join(subject.catalogPath, "docker.sock");
    proxy = await openSocketProxy(proxyPath, DAEMON_SOCKET ?? "");
    direct = await subject.open(instanceId);
    dockerHost = `unix://${proxyPath}`;
    runtime = await openDockerRuntime({ ...options, dockerHost });
  });

  afterAll(async () => {
    await direct.removeInstance();
    await direct[Symbol.asyncDispose]();
    await runtime[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    await subject.close();
  });

  const removeImage = async (image: string) => {
    await subject.fixture.docker
      .getImage(image)
      .remove({ force: true })
      // Where it did not come, something else is wrong.
      .catch(() => undefined);
  };

  it("adopts what a create without an answer has made all the same", async () => {
    const spec = await subject.makeSpec();
    proxy.cutAnswersTo(/^POST .*\/containers\/create/);
    expect(await failureOf(runtime.ensure(spec))).toBe("unreachable");
    proxy.passAnswers();
    const made = await observeOne(direct, spec.engineId);
    expect(await runtime.ensure(spec)).toEqual({ containerId: made.containerId, created: false });
  });

  it("says unreachable of a stop without an answer, which ends the engine all the same", async () => {
    const spec = await subject.makeSpec();
    const containerId = await boot(runtime, spec);
    proxy.cutAnswersTo(/./);
    const calls = [runtime.stop(containerId, 0), runtime.check()];
    expect(await Promise.all(calls.map(failureOf))).toEqual(["unreachable", "unreachable"]);
    proxy.passAnswers();
    expect((await observeOne(direct, spec.engineId)).state).toBe("exited");
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
    const nothing = `unix://${join(subject.catalogPath, "nothing.sock")}`;
    expect(await failureOf(openDockerRuntime({ ...options, dockerHost: nothing }))).toBe("unreachable");
    for (const unfit of ["ssh://host", "what is this"]) {
      expect(await failureOf(openDockerRuntime({ ...options, dockerHost: unfit }))).toBe("refused");
    }
  });

  it("marks no other daemon than the one on record, whichever answers by then", async () => {
    const given = { ...options, dockerHost: process.env["DOCKER_HOST"] };
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
    await using _network = { [Symbol.asyncDispose]: async () => network.remove() };
    await using own = await openDockerRuntime({ ...options, instanceId: `own-${randomUUID()}`, dockerHost });
    // Before the network, which could not be removed while a container is on it.
    await using _instance = { [Symbol.asyncDispose]: () => own.removeInstance() };
    await boot(own, await subject.makeSpec({ network: name }));
    expect(warnings).toContainEqual({
      fields: { network: name },
      message: expect.stringContaining("reach"),
    });
    await own.removeInstance();
    expect((await network.inspect()).Name).toBe(name);
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
      const told = infos.filter(({ fields }) => "image" in fields && fields.image === image);
      expect(told.map(({ message }) => message)).toEqual(["pulling the image", "pulled the image"]);
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
    await expect.poll(() => direct.findImage(registry.image)).toBeDefined();
    abort.abort();
    expect(await pull).toBe("unreachable");
    proxy.passAnswers();
    proxy.cut();
  });

  it("leaves nobody waiting when it is closed in the middle of a pull", async () => {
    await using registry = await openTestRegistry();
    await using _image = { [Symbol.asyncDispose]: () => removeImage(registry.image) };
    const closing = await openDockerRuntime({ ...options, dockerHost });
    proxy.holdAnswersTo(/^POST .*\/images\/create/);
    const pull = failureOf(closing.resolveImage(registry.image));
    // The daemon has done its part by then, and whoever asked for it has not heard of it.
    await expect.poll(() => direct.findImage(registry.image)).toBeDefined();
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
