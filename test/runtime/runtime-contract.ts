import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { getHostPort, type ContainerSpec, type EngineRuntime } from "../../server/runtime/engine-runtime.ts";
import { ask, boot, failureOf, observeOne, recordEvents, untilHealthy } from "../support/runtime-harness.ts";
import { holdPort } from "../support/port-block.ts";
import { FIXTURE_KEY_HASH } from "../support/runtime-spec.ts";

export interface RuntimeUnderTest {
  /** A runtime for that instance. All runtimes of one subject share one daemon. */
  open(instanceId: string, marked?: boolean): Promise<EngineRuntime>;
  /** A runtime whose daemon does not answer; null for a kind of runtime without a daemon. */
  openUnreachable: (() => Promise<EngineRuntime>) | null;
  /** Removes the marker of that instance from the daemon. */
  loseMarker(instanceId: string): Promise<void>;
  makeSpec(overrides?: Partial<ContainerSpec>): Promise<ContainerSpec>;
  image: string;
  /** An image that does not exist; null for a runtime without images. */
  missingImage: string | null;
  /** Whether engines are real processes with real files. */
  isReal: boolean;
  close(): Promise<void>;
}

/** Tests each promise of the port against one implementation. */
export function describeRuntimeContract(name: string, openSubject: () => Promise<RuntimeUnderTest>): void {
  describe(`the ${name} runtime keeps the port's contract`, () => {
    const instanceId = `contract-${randomUUID()}`;
    let subject: RuntimeUnderTest;
    let runtime: EngineRuntime;

    beforeAll(async () => {
      subject = await openSubject();
      runtime = await subject.open(instanceId);
    });

    afterAll(async () => {
      await runtime.removeInstance();
      await runtime[Symbol.asyncDispose]();
      await subject.close();
    });

    /** A runtime of another instance on the same daemon. Disposing it removes everything that it made. */
    async function openOther(otherId = `other-${randomUUID()}`) {
      const other = await subject.open(otherId);
      return {
        other,
        [Symbol.asyncDispose]: async () => {
          await other.removeInstance();
          await other[Symbol.asyncDispose]();
        },
      };
    }

    describe("its identity", () => {
      it("has its kind, and the same host each time it is opened", async () => {
        await using again = await subject.open(instanceId);
        expect(runtime.kind).toBe(name);
        expect(runtime.host).not.toBe("");
        expect(again.host).toBe(runtime.host);
      });

      it("passes the check before and after it was marked, however often", async () => {
        await using opened = await openOther();
        await opened.other.check();
        await opened.other.markInstance();
        await opened.other.markInstance();
        await opened.other.check();
      });

      it("fails with `changed` when the marker was removed, and when a marked instance finds none", async () => {
        const otherId = `other-${randomUUID()}`;
        await using opened = await openOther(otherId);
        await opened.other.markInstance();
        await subject.loseMarker(otherId);
        expect(await failureOf(opened.other.check())).toBe("changed");
        await using marked = await subject.open(`never-marked-${randomUUID()}`, true);
        expect(await failureOf(marked.check())).toBe("changed");
      });

      it("removes everything of one instance, running engines included, and nothing of another", async () => {
        const otherId = `other-${randomUUID()}`;
        await using opened = await openOther(otherId);
        const [mine, theirs] = [await subject.makeSpec(), await subject.makeSpec()];
        await runtime.ensure(mine);
        await opened.other.markInstance();
        await boot(opened.other, theirs);
        await opened.other.removeInstance();
        await opened.other.removeInstance();
        expect(await opened.other.observeAll()).toEqual({ containers: [], volumes: [] });
        expect(await opened.other.hasData(theirs.volumeName)).toBe(false);
        expect(await ask(theirs, "/health")).toBeUndefined();
        expect(await failureOf(opened.other.check())).toBe("changed");
        expect(await runtime.observe(mine.engineId)).toHaveLength(1);
      });
    });

    describe("images", () => {
      it("resolves an image to an id that resolves to itself", async () => {
        const imageId = await runtime.resolveImage(subject.image);
        expect(await runtime.resolveImage(imageId)).toBe(imageId);
        expect(await runtime.findImage(subject.image)).toBe(imageId);
      });

      it("fails with `image_missing` when a missing image is resolved, and when it is used", async (test) => {
        if (subject.missingImage === null) return test.skip("this runtime has no images");
        const imageId = subject.missingImage;
        expect(await runtime.findImage(imageId)).toBeUndefined();
        expect(await failureOf(runtime.resolveImage(imageId))).toBe("image_missing");
        expect(await failureOf(runtime.ensure(await subject.makeSpec({ imageId })))).toBe("image_missing");
      });
    });

    describe("ensure", () => {
      it("creates the container as specified, and does not start it", async (test) => {
        if (runtime.startsOnEnsure) return test.skip("this runtime starts what it creates");
        const spec = await subject.makeSpec({ incarnation: 3 });
        const { containerId } = await runtime.ensure(spec);
        expect(await runtime.observe(spec.engineId)).toEqual([
          {
            containerId,
            engineId: spec.engineId,
            incarnation: 3,
            specHash: spec.specHash,
            state: "created",
            processIdentity: expect.any(String),
            startedAt: null,
            exitCode: null,
            oomKilled: false,
            defect: null,
            restartCount: 0,
            endpoint: `http://127.0.0.1:${spec.hostPort}`,
            hostPort: spec.hostPort,
            keyHash: FIXTURE_KEY_HASH,
          },
        ]);
        expect(await runtime.hasData(spec.volumeName)).toBe(true);
        expect(await ask(spec, "/health")).toBeUndefined();
      });

      it("returns the existing container, for calls one after the other and at once", async () => {
        const spec = await subject.makeSpec();
        const answers = await Promise.all([1, 2, 3, 4].map(() => runtime.ensure(spec)));
        await using again = await subject.open(instanceId);
        answers.push(await again.ensure(spec));
        expect(new Set(answers.map(({ containerId }) => containerId)).size).toBe(1);
        expect(answers.filter(({ created }) => created)).toHaveLength(1);
        expect(await runtime.observe(spec.engineId)).toHaveLength(1);
      });

      it("adopts a running container without a change", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        const before = await observeOne(runtime, spec.engineId);
        expect(await runtime.ensure(spec)).toEqual({ containerId, created: false });
        expect(await observeOne(runtime, spec.engineId)).toEqual(before);
      });

      it("fails with `conflict` when the name or the volume belongs to another instance", async () => {
        await using opened = await openOther();
        const spec = await subject.makeSpec();
        await runtime.ensure(spec);
        expect(await failureOf(opened.other.ensure(spec))).toBe("conflict");
        const sameVolume = await subject.makeSpec({ volumeName: spec.volumeName });
        expect(await failureOf(opened.other.ensure(sameVolume))).toBe("conflict");
        expect(await opened.other.observeAll()).toEqual({ containers: [], volumes: [] });
      });
    });

    describe("start", () => {
      it("runs the engine at its endpoint, and starts one process however often it is called", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        const before = await observeOne(runtime, spec.engineId);
        expect(before).toMatchObject({ state: "running", exitCode: null });
        expect(before.startedAt).toBe(new Date(before.startedAt ?? "").toISOString());
        await Promise.all([runtime.start(containerId), runtime.start(containerId)]);
        expect(await observeOne(runtime, spec.engineId)).toEqual(before);
      });

      it("fails with `port_taken`, leaves nothing running, and works once the port is free", async () => {
        const spec = await subject.makeSpec();
        const { containerId } = await runtime.ensure(spec);
        {
          await using holder = await holdPort(getHostPort(spec));
          expect(holder).toBeDefined();
          expect(await failureOf(runtime.start(containerId))).toBe("port_taken");
          expect((await observeOne(runtime, spec.engineId)).state).toMatch(/created|exited/);
        }
        await runtime.start(containerId);
        await untilHealthy(spec);
      });

      it("can stop and remove a container after its start failed with `port_taken`", async () => {
        const spec = await subject.makeSpec();
        const { containerId } = await runtime.ensure(spec);
        await using _holder = await holdPort(getHostPort(spec));
        expect(await failureOf(runtime.start(containerId))).toBe("port_taken");
        await runtime.stop(containerId, 0);
        await runtime.remove(containerId);
        expect(await runtime.observe(spec.engineId)).toEqual([]);
      });

      it("fails with `port_taken` when another engine has the port", async () => {
        const spec = await subject.makeSpec();
        await boot(runtime, spec);
        const rival = await subject.makeSpec({ hostPort: spec.hostPort });
        const { containerId } = await runtime.ensure(rival);
        expect(await failureOf(runtime.start(containerId))).toBe("port_taken");
        expect(await ask(spec, "/health")).toMatchObject({ status: "ok" });
      });

      it("starts a new process in a stopped container", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        const before = await observeOne(runtime, spec.engineId);
        await runtime.stop(containerId, 10);
        await runtime.start(containerId);
        await untilHealthy(spec);
        const after = await observeOne(runtime, spec.engineId);
        expect(after).toMatchObject({ containerId, state: "running", exitCode: null });
        expect(Date.parse(after.startedAt ?? "")).toBeGreaterThan(Date.parse(before.startedAt ?? ""));
      });
    });

    describe("pause", () => {
      it("freezes the engine without ending it, and unpause resumes it; both are idempotent", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        const before = await observeOne(runtime, spec.engineId);
        await runtime.pause(containerId);
        await runtime.pause(containerId);
        expect(await observeOne(runtime, spec.engineId)).toEqual({ ...before, state: "paused" });
        expect(await ask(spec, "/health", 300)).toBeUndefined();
        await runtime.unpause(containerId);
        await runtime.unpause(containerId);
        await untilHealthy(spec);
        expect(await observeOne(runtime, spec.engineId)).toEqual(before);
      });

      it("is refused for a container that does not run; start is refused for a paused one", async () => {
        const spec = await subject.makeSpec();
        const { containerId } = await runtime.ensure(spec);
        expect(await failureOf(runtime.pause(containerId))).toBe("refused");
        expect(await failureOf(runtime.unpause(containerId))).toBe("refused");
        await runtime.start(containerId);
        await untilHealthy(spec);
        await runtime.pause(containerId);
        expect(await failureOf(runtime.start(containerId))).toBe("refused");
        expect((await observeOne(runtime, spec.engineId)).state).toBe("paused");
      });
    });

    describe("stop", () => {
      it("ends the engine with SIGTERM, and succeeds for a container that is stopped or never ran", async () => {
        const spec = await subject.makeSpec();
        const { containerId } = await runtime.ensure(spec);
        await runtime.stop(containerId, 10);
        await runtime.start(containerId);
        await untilHealthy(spec);
        const before = await observeOne(runtime, spec.engineId);
        await runtime.stop(containerId, 10);
        await runtime.stop(containerId, 10);
        expect(await observeOne(runtime, spec.engineId)).toEqual({ ...before, state: "exited", exitCode: 0 });
        expect(await ask(spec, "/health")).toBeUndefined();
      });

      it("kills a process that ignores SIGTERM after the grace", async () => {
        const spec = await subject.makeSpec({ environment: { FIXTURE_IGNORE_SIGTERM: "1" } });
        const containerId = await boot(runtime, spec);
        const begunAt = performance.now();
        await runtime.stop(containerId, 1);
        // A timer counts whole milliseconds and may be one early.
        expect(performance.now() - begunAt).toBeGreaterThanOrEqual(998);
        expect(await observeOne(runtime, spec.engineId)).toMatchObject({ state: "exited", exitCode: 137 });
      });

      it("ends a paused engine with SIGTERM too", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        await runtime.pause(containerId);
        await runtime.stop(containerId, 10);
        expect(await observeOne(runtime, spec.engineId)).toMatchObject({ state: "exited", exitCode: 0 });
      });

      it("frees the port", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        await runtime.stop(containerId, 10);
        const next = await subject.makeSpec({ hostPort: spec.hostPort });
        await boot(runtime, next);
      });
    });

    describe("remove", () => {
      it.each(["created", "running", "paused", "exited"] as const)(
        "removes a container that is %s, and succeeds when it is gone; the data stays",
        async (state) => {
          const spec = await subject.makeSpec();
          const { containerId } = await runtime.ensure(spec);
          if (state !== "created") await boot(runtime, spec);
          if (state === "paused") await runtime.pause(containerId);
          if (state === "exited") await runtime.stop(containerId, 10);
          expect((await observeOne(runtime, spec.engineId)).state).toBe(state);
          await Promise.all([runtime.remove(containerId), runtime.remove(containerId)]);
          await runtime.remove(containerId);
          expect(await runtime.observe(spec.engineId)).toEqual([]);
          expect(await ask(spec, "/health")).toBeUndefined();
          expect(await runtime.hasData(spec.volumeName)).toBe(true);
        },
      );

      it("does not wait for the grace of a stop in progress", async () => {
        const spec = await subject.makeSpec({ environment: { FIXTURE_IGNORE_SIGTERM: "1" } });
        const containerId = await boot(runtime, spec);
        const stopped = runtime.stop(containerId, 600).catch(() => undefined);
        await runtime.remove(containerId);
        expect(await runtime.observe(spec.engineId)).toEqual([]);
        if (subject.isReal) await stopped;
      });
    });

    describe("a container that is gone", () => {
      it("is `no_such_container` for every call that needs it, and success for remove", async () => {
        const spec = await subject.makeSpec();
        const { containerId } = await runtime.ensure(spec);
        await runtime.remove(containerId);
        await expectNoSuchContainer(runtime, containerId);
        await expectNoSuchContainer(runtime, "0".repeat(64));
        await expectNoSuchContainer(runtime, "../../nowhere");
        await runtime.remove(containerId);
      });

      it("is never taken for the next container with its name", async () => {
        const spec = await subject.makeSpec();
        const { containerId } = await runtime.ensure(spec);
        await runtime.remove(containerId);
        const next = await runtime.ensure(spec);
        expect(next.containerId).not.toBe(containerId);
        await expectNoSuchContainer(runtime, containerId);
        await runtime.remove(containerId);
        expect((await observeOne(runtime, spec.engineId)).containerId).toBe(next.containerId);
      });
    });

    describe("data", () => {
      it("is measured for each volume of this instance, and for no other one", async () => {
        const spec = await subject.makeSpec();
        await boot(runtime, spec);
        const before = (await runtime.measureVolumes()).get(spec.volumeName);
        expect(before).toBeGreaterThanOrEqual(0);
        if (subject.isReal) {
          expect(await ask(spec, "/note?text=x")).toBe("ok");
          expect((await runtime.measureVolumes()).get(spec.volumeName)).toBeGreaterThan(before ?? 0);
        }
        await using opened = await openOther(`other-${randomUUID()}`);
        expect(await opened.other.measureVolumes()).toEqual(new Map());
      });

      it("exists from the first ensure to its removal, which succeeds when the data is gone", async () => {
        const spec = await subject.makeSpec();
        expect(await runtime.hasData(spec.volumeName)).toBe(false);
        await runtime.removeData(spec.volumeName);
        const { containerId } = await runtime.ensure(spec);
        expect(await runtime.hasData(spec.volumeName)).toBe(true);
        expect(await failureOf(runtime.removeData(spec.volumeName))).toBe("refused");
        await runtime.remove(containerId);
        const { volumes } = await runtime.observeAll();
        expect(volumes).toContainEqual({ volumeName: spec.volumeName, engineId: spec.engineId });
        await runtime.removeData(spec.volumeName);
        await runtime.removeData(spec.volumeName);
        expect(await runtime.hasData(spec.volumeName)).toBe(false);
        expect((await runtime.observeAll()).volumes.map(({ volumeName }) => volumeName)).not.toContain(
          spec.volumeName,
        );
      });

      it("outlives stop, start and the next incarnation", async (test) => {
        if (!subject.isReal) return test.skip("this runtime has no files");
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        expect(await ask(spec, "/note?text=remember")).toBe("ok");
        await runtime.stop(containerId, 10);
        const next = { ...spec, incarnation: 2 };
        await boot(runtime, next);
        expect(await ask(next, "/read")).toBe("remember");
      });
    });

    describe("observation", () => {
      it("lists all incarnations of an engine, newest first", async () => {
        const spec = await subject.makeSpec({ incarnation: 9 });
        await runtime.ensure(spec);
        await runtime.ensure({ ...spec, incarnation: 10 });
        await runtime.ensure({ ...spec, incarnation: 1 });
        const incarnations = (await runtime.observe(spec.engineId)).map(({ incarnation }) => incarnation);
        expect(incarnations).toEqual([10, 9, 1]);
        const { containers } = await runtime.observeAll();
        const own = containers.filter(({ engineId }) => engineId === spec.engineId);
        expect(own.map(({ incarnation }) => incarnation)).toEqual([10, 9, 1]);
      });

      it("is empty for an engine without containers", async () => {
        expect(await runtime.observe(randomUUID())).toEqual([]);
      });

      it("covers only this instance, and no other call touches another instance either", async () => {
        await using opened = await openOther();
        const { other } = opened;
        const [mine, theirs] = [await subject.makeSpec(), await subject.makeSpec()];
        const myId = await boot(runtime, mine);
        const { containerId: theirId } = await other.ensure(theirs);
        const all = await other.observeAll();
        expect(all.containers.map(({ containerId }) => containerId)).toEqual([theirId]);
        expect(all.volumes).toEqual([{ volumeName: theirs.volumeName, engineId: theirs.engineId }]);
        expect(await other.observe(mine.engineId)).toEqual([]);
        expect((await runtime.observeAll()).containers.map(({ containerId }) => containerId)).not.toContain(
          theirId,
        );
        await expectNoSuchContainer(other, myId);
        await other.remove(myId);
        expect(await failureOf(other.removeData(mine.volumeName))).toBe("conflict");
        expect(await failureOf(other.hasData(mine.volumeName))).toBe("conflict");
        expect(await ask(mine, "/health")).toMatchObject({ status: "ok" });
      });

      it("finds everything again after the replica is gone", async () => {
        const spec = await subject.makeSpec();
        const first = await subject.open(instanceId);
        const containerId = await boot(first, spec);
        const before = await observeOne(first, spec.engineId);
        await first[Symbol.asyncDispose]();
        expect(await ask(spec, "/health")).toMatchObject({ status: "ok" });
        await using second = await subject.open(instanceId);
        expect(await observeOne(second, spec.engineId)).toEqual(before);
        await second.start(containerId);
        await second.pause(containerId);
        expect(await observeOne(second, spec.engineId)).toEqual({ ...before, state: "paused" });
        await second.unpause(containerId);
        await second.stop(containerId, 10);
        const after = await observeOne(second, spec.engineId);
        expect(after).toMatchObject({ state: "exited", startedAt: before.startedAt });
      });

      it("has the exit code of an engine that ended by itself", async () => {
        const spec = await subject.makeSpec({ environment: { FIXTURE_EXIT_CODE: "42" } });
        const { containerId } = await runtime.ensure(spec);
        await runtime.start(containerId);
        await expect.poll(async () => (await observeOne(runtime, spec.engineId)).exitCode).toBe(42);
        await runtime.stop(containerId, 0);
        expect((await observeOne(runtime, spec.engineId)).state).toBe("exited");
      });
    });

    describe("events", () => {
      it("cover this instance's containers, in order, until the signal aborts", async () => {
        await using opened = await openOther();
        const spec = await subject.makeSpec();
        const theirs = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        await boot(opened.other, theirs);
        await using record = recordEvents(runtime);
        // The stream is open once it has delivered an event.
        await expect
          .poll(async () => {
            await runtime.pause(containerId);
            await runtime.unpause(containerId);
            return record.events.length;
          })
          .toBeGreaterThan(1);
        // Each signal is an event of its own, and one stop may send two signals.
        const seen = () =>
          record.events
            .map(({ kind }) => kind)
            .filter((kind, index, kinds) => !kind.endsWith("pause") && kind !== kinds[index - 1]);
        await opened.other.removeInstance();
        await runtime.stop(containerId, 10);
        await runtime.start(containerId);
        await runtime.remove(containerId);
        // In Docker, two parts of the daemon watch the end of a stopped process. Either may report first.
        const end = name === "docker" ? "(die stop|stop die)" : "die stop";
        const order = new RegExp(`^kill ${end} start kill die destroy$`);
        await expect.poll(() => seen().join(" ")).toMatch(order);
        expect(record.events.every((event) => event.containerId === containerId)).toBe(true);
        expect(record.events.every((event) => event.engineId === spec.engineId)).toBe(true);
        await record.stop();
        expect(await record.ended).toBeUndefined();
      });

      it("end at once when the signal has aborted already", async () => {
        const read = runtime.events(AbortSignal.abort());
        expect(await read[Symbol.asyncIterator]().next()).toMatchObject({ done: true });
      });
    });

    describe("logs and stats", () => {
      it("return the last lines of both streams, oldest first", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        const streams = subject.isReal ? ["stderr", "stdout"] : ["stdout"];
        await expect
          .poll(async () => new Set((await runtime.logs(containerId, 100)).map(({ stream }) => stream)))
          .toEqual(new Set(streams));
        const lines = await runtime.logs(containerId, 100);
        expect(lines.find(({ stream }) => stream === "stdout")?.line).toMatch(/^listening on \d+$/);
        for (const { at } of lines) expect(at).toBe(new Date(at).toISOString());
        // Lines of different streams need not arrive in the order of their dates.
        for (const stream of streams) {
          const times = lines.filter((line) => line.stream === stream).map(({ at }) => at);
          expect(times).toEqual(times.toSorted());
        }
        expect(await runtime.logs(containerId, 1)).toEqual(lines.slice(-1));
        expect(await runtime.logs(containerId, 0)).toEqual([]);
      });

      it("are kept after the engine has ended", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        await runtime.stop(containerId, 10);
        const lines = await runtime.logs(containerId, 100);
        expect(lines.some(({ line }) => line.startsWith("listening"))).toBe(true);
      });

      it("drop the oldest lines when the log is too large", async (test) => {
        if (!subject.isReal) return test.skip("this runtime writes no files");
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        expect(await ask(spec, "/log?count=300&length=20000")).toBe("ok");
        const hasLast = async () => (await runtime.logs(containerId, 1_000)).at(-1)?.line.startsWith("300:");
        await expect.poll(hasLast).toBe(true);
        const lines = await runtime.logs(containerId, 1_000);
        const size = lines.reduce((total, { line }) => total + line.length, 0);
        expect(size).toBeLessThanOrEqual(1024 * 1024);
        // The daemon cuts a long line into pieces; logs() joins them.
        for (const { line } of lines.slice(-10)) expect(line).toMatch(/^\d+:x{20000}$/);
        expect((await runtime.logs(containerId, 3)).map(({ line }) => line.split(":")[0])).toEqual([
          "298",
          "299",
          "300",
        ]);
      });

      it("measure a running container, and are zero for one that does not run", async () => {
        const spec = await subject.makeSpec();
        const containerId = await boot(runtime, spec);
        const stats = await runtime.stats(containerId);
        expect(stats.memoryBytes).toBeGreaterThan(0);
        expect(stats.cpuNanoseconds).toBeGreaterThan(0n);
        await runtime.stop(containerId, 10);
        expect(await runtime.stats(containerId)).toEqual({
          memoryBytes: 0,
          cpuNanoseconds: 0n,
          networkBytes: 0n,
        });
      });
    });

    it("fails every call with `unreachable` when the daemon does not answer", async (test) => {
      if (subject.openUnreachable === null) return test.skip("this runtime has no daemon");
      await using away = await subject.openUnreachable();
      const id = "0".repeat(64);
      const calls = [
        away.check(),
        away.markInstance(),
        away.resolveImage(subject.image),
        away.findImage(subject.image),
        away.ensure(await subject.makeSpec()),
        away.start(id),
        away.pause(id),
        away.unpause(id),
        away.stop(id, 0),
        away.remove(id),
        away.removeData("volume"),
        away.hasData("volume"),
        away.observe(randomUUID()),
        away.observeAll(),
        away.logs(id, 1),
        away.stats(id),
        away.removeInstance(),
        away.events(new AbortController().signal)[Symbol.asyncIterator]().next(),
      ];
      for (const kind of await Promise.all(calls.map(failureOf))) expect(kind).toBe("unreachable");
    });
  });
}

async function expectNoSuchContainer(runtime: EngineRuntime, containerId: string): Promise<void> {
  const calls = [
    runtime.start(containerId),
    runtime.pause(containerId),
    runtime.unpause(containerId),
    runtime.stop(containerId, 0),
    runtime.logs(containerId, 1),
    runtime.stats(containerId),
  ];
  for (const kind of await Promise.all(calls.map(failureOf))) expect(kind).toBe("no_such_container");
}
