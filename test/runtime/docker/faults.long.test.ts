import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDockerRuntime } from "../../../server/runtime/docker/runtime.ts";
import { RuntimeFailure, type EngineRuntime } from "../../../server/runtime/engine-runtime.ts";
import { isDockerAvailable } from "../../support/docker-available.ts";
import { openDockerSubject, type DockerSubject } from "../../support/runtime-docker-subject.ts";
import {
  ask,
  boot,
  failureOf,
  observeOne,
  recordEvents,
  untilHealthy,
} from "../../support/runtime-harness.ts";
import { openTestRegistry } from "../../support/runtime-registry.ts";
import { DAEMON_SOCKET, openSocketProxy, type SocketProxy } from "../../support/runtime-socket-proxy.ts";

describe.skipIf(!isDockerAvailable() || !DAEMON_SOCKET)("the docker runtime with faults", () => {
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
  /** The same installation, without the proxy in between. */
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
      // If the image never arrived, the test has failed already.
      .catch(() => undefined);
  };

  it("adopts the container of a create whose answer was lost", async () => {
    const spec = await subject.makeSpec();
    proxy.cutAnswersTo(/^POST .*\/containers\/create/);
    expect(await failureOf(runtime.ensure(spec))).toBe("unreachable");
    proxy.passAnswers();
    const made = await observeOne(direct, spec.engineId);
    expect(await runtime.ensure(spec)).toEqual({ containerId: made.containerId, created: false });
  });

  it("a stop whose answer is lost is unreachable, and still stops the engine", async () => {
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

  it("events throw when the connection is lost, and a new call reads on", async () => {
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

  it("opens without a daemon if the host is recorded, and fails otherwise", async () => {
    await using away = await subject.openUnreachable();
    expect(away.host).toBe("docker:recorded");
    const nothing = `unix://${join(subject.catalogPath, "nothing.sock")}`;
    expect(await failureOf(openDockerRuntime({ ...options, dockerHost: nothing }))).toBe("unreachable");
    for (const unfit of ["ssh://host", "what is this"]) {
      expect(await failureOf(openDockerRuntime({ ...options, dockerHost: unfit }))).toBe("refused");
    }
  });

  it("marks only the recorded daemon, even if another daemon answers now", async () => {
    const given = { ...options, dockerHost: process.env["DOCKER_HOST"] };
    await using other = await openDockerRuntime({ ...given, host: "docker:another" });
    expect(await failureOf(other.markInstance())).toBe("changed");
    await using same = await openDockerRuntime({ ...given, host: direct.host });
    await same.markInstance();
    await same.check();
  });

  it("puts the environment neither into a URL nor into a failure's message", async () => {
    const secret = `sk-${randomUUID()}`;
    const spec = await subject.makeSpec({ environment: { OPENAI_API_KEY: secret } });
    await runtime.ensure(spec);
    const requests = proxy.requests();
    expect(requests).toContain(secret);
    const firstLines = requests.split("\n").filter((line) => line.includes("HTTP/1.1"));
    expect(firstLines.join("\n")).not.toContain(secret);
    const broken = await subject.makeSpec({ environment: { "": secret }, catalogPath: "relative" });
    const failure = await runtime.ensure(broken).catch((error: unknown) => error);
    expect(failure).toMatchObject({ kind: "refused" });
    expect(String(failure)).not.toContain(secret);
  });

  it("a container name that another program uses is a conflict, and its container stays untouched", async () => {
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

  it("a volume name that another program uses is a conflict, and its volume stays untouched", async () => {
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

  it("uses an existing network, warns if its containers reach each other, and never removes it", async () => {
    const name = `enginehouse-open-${randomUUID()}`;
    const network = await subject.fixture.docker.createNetwork({ Name: name, Driver: "bridge" });
    await using _network = { [Symbol.asyncDispose]: async () => network.remove() };
    await using own = await openDockerRuntime({ ...options, instanceId: `own-${randomUUID()}`, dockerHost });
    // Disposed before the network: a network with a container cannot be removed.
    await using _instance = { [Symbol.asyncDispose]: () => own.removeInstance() };
    await boot(own, await subject.makeSpec({ network: name }));
    expect(warnings).toContainEqual({
      fields: { network: name },
      message: expect.stringContaining("reach"),
    });
    await own.removeInstance();
    expect((await network.inspect()).Name).toBe(name);
  });

  it("creates one network, however many engines and replicas need it at once", async () => {
    const network = `enginehouse-race-${randomUUID()}`;
    const specs = await Promise.all([1, 2, 3, 4].map(() => subject.makeSpec({ network })));
    const made = await Promise.all(
      specs.map((spec, index) => (index % 2 === 0 ? runtime : direct).ensure(spec)),
    );
    // An ambiguous network name fails only at start.
    for (const { containerId } of made.slice(0, 2)) await direct.start(containerId);
    const networks = await subject.fixture.docker.listNetworks({ filters: { name: [network] } });
    expect(networks).toHaveLength(1);
  });

  it("pulls a missing image once for all callers, and logs the pull", async () => {
    await using registry = await openTestRegistry();
    const { image } = registry;
    try {
      const ids = await Promise.all([runtime.resolveImage(image), runtime.resolveImage(image)]);
      expect(ids[0]).toMatch(/^sha256:[0-9a-f]{64}$/);
      expect(ids[1]).toBe(ids[0]);
      const { RepoDigests } = await subject.fixture.docker.getImage(image).inspect();
      expect(await runtime.resolveImage(RepoDigests[0] ?? "")).toBe(ids[0]);
      const logged = infos.filter(({ fields }) => "image" in fields && fields.image === image);
      expect(logged.map(({ message }) => message)).toEqual(["pulling the image", "pulled the image"]);
    } finally {
      await subject.fixture.docker.getImage(image).remove({ force: true });
    }
  });

  it("an image is missing if its pull fails at once or half-way, or if no image can have the name", async () => {
    await using registry = await openTestRegistry();
    expect(await failureOf(runtime.resolveImage(registry.brokenImage))).toBe("image_missing");
    expect(await failureOf(runtime.resolveImage(registry.image.replace("good", "absent")))).toBe(
      "image_missing",
    );
    for (const name of ["", "../containers/json", "a//b", "UPPER case", `sha256:${"1".repeat(64)}`]) {
      expect(await failureOf(runtime.resolveImage(name)), name).toBe("image_missing");
    }
  });

  it("stops waiting for a pull when the signal aborts", async () => {
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

  it("a close during a pull ends the wait of its callers", async () => {
    await using registry = await openTestRegistry();
    await using _image = { [Symbol.asyncDispose]: () => removeImage(registry.image) };
    const closing = await openDockerRuntime({ ...options, dockerHost });
    proxy.holdAnswersTo(/^POST .*\/images\/create/);
    const pull = failureOf(closing.resolveImage(registry.image));
    // By now the daemon has pulled the image, but the runtime has not received the answer.
    await expect.poll(() => direct.findImage(registry.image)).toBeDefined();
    await closing[Symbol.asyncDispose]();
    expect(await pull).toBe("unreachable");
    proxy.passAnswers();
  });

  it("several removals of one container at once all succeed", async () => {
    const spec = await subject.makeSpec();
    const containerId = await boot(runtime, spec);
    await Promise.all([runtime.remove(containerId), direct.remove(containerId), runtime.remove(containerId)]);
    expect(await runtime.observe(spec.engineId)).toEqual([]);
    expect(await ask(spec, "/health")).toBeUndefined();
  });
});
