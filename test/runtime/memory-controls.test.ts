import { describe, expect, it } from "vitest";
import { MemoryDaemon } from "../support/memory-daemon.ts";
import { openMemoryRuntime } from "../support/memory-runtime.ts";
import { ask, boot, failureOf, observeOne, recordEvents } from "../support/runtime-harness.ts";
import { FIXTURE_KEY, makeSpec } from "../support/runtime-spec.ts";

describe("the memory runtime's controls", () => {
  it("make the next call fail, with or without its effect", async () => {
    await using runtime = openMemoryRuntime();
    const spec = await makeSpec();
    runtime.failNext("ensure", "refused");
    runtime.failNext("ensure", "unreachable", { completed: true });
    expect(await failureOf(runtime.ensure(spec))).toBe("refused");
    expect(await runtime.observe(spec.engineId)).toEqual([]);
    expect(await failureOf(runtime.ensure(spec))).toBe("unreachable");
    const { containerId } = await observeOne(runtime, spec.engineId);
    expect(await runtime.ensure(spec)).toEqual({ containerId, created: false });
  });

  it("make a call exceed its deadline, and complete it anyway", async () => {
    await using runtime = openMemoryRuntime({ callTimeoutMs: 10 });
    const spec = await makeSpec();
    const { containerId } = await runtime.ensure(spec);
    runtime.hang("start");
    expect(await failureOf(runtime.start(containerId))).toBe("unreachable");
    expect(await ask(spec, "/health")).toMatchObject({ status: "ok" });
  });

  it("make the daemon unreachable and reachable again, while engines keep running", async () => {
    await using runtime = openMemoryRuntime();
    const spec = await makeSpec();
    await boot(runtime, spec);
    await using record = recordEvents(runtime);
    runtime.unreachable(true);
    expect(await failureOf(runtime.observe(spec.engineId))).toBe("unreachable");
    expect(await record.ended).toMatchObject({ kind: "unreachable" });
    expect(await ask(spec, "/health")).toMatchObject({ status: "ok" });
    runtime.unreachable(false);
    expect((await observeOne(runtime, spec.engineId)).state).toBe("running");
  });

  it("crash an engine, and restart it like a daemon", async () => {
    await using runtime = openMemoryRuntime();
    const spec = await makeSpec();
    const containerId = await boot(runtime, spec);
    const before = await observeOne(runtime, spec.engineId);
    await runtime.restart(spec.engineId);
    const after = await observeOne(runtime, spec.engineId);
    expect(after).toMatchObject({ containerId, state: "running", restartCount: 1 });
    expect(after.startedAt).not.toBe(before.startedAt);
    await runtime.crash(spec.engineId, { exitCode: 137, oomKilled: true });
    expect(await observeOne(runtime, spec.engineId)).toMatchObject({
      state: "exited",
      exitCode: 137,
      oomKilled: true,
    });
    expect(await ask(spec, "/health")).toBeUndefined();
  });

  it("run a hook before and after the effect of a call, and throw on its error", async () => {
    const daemon = new MemoryDaemon();
    await using runtime = openMemoryRuntime({ daemon });
    const spec = await makeSpec();
    const steps: string[] = [];
    runtime.onCall = ({ call, when }) => {
      steps.push(`${when} ${call}`);
      if (when === "after") throw new Error("killed");
    };
    await expect(runtime.ensure(spec)).rejects.toThrow("killed");
    await using next = openMemoryRuntime({ daemon });
    expect(await next.observe(spec.engineId)).toHaveLength(1);
    expect(steps).toEqual(["before ensure", "after ensure"]);
    expect(runtime.calls.map(({ call }) => call)).toEqual(["ensure"]);
    await daemon[Symbol.asyncDispose]();
  });

  it("answer like an engine, and accept only the key whose hash the container has", async () => {
    await using runtime = openMemoryRuntime();
    const spec = await makeSpec();
    await boot(runtime, spec);
    const call = (key: string) =>
      fetch(`http://127.0.0.1:${spec.hostPort}/rpc`, {
        method: "POST",
        headers: { "x-engine-key": key },
        body: '{"method":"get_config","params":{}}',
      });
    expect((await call("wrong")).status).toBe(401);
    const answer = await call(FIXTURE_KEY);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toEqual({ result: { method: "get_config", params: {} } });
  });

  it("answer with the handler of the test, which gets the observation of its process", async () => {
    await using runtime = openMemoryRuntime({
      handler: (observation, environment) => (_request, response) =>
        response.end(JSON.stringify([observation.incarnation, environment["EXTRA"]])),
    });
    const spec = await makeSpec({ incarnation: 4, environment: { EXTRA: "x" } });
    const { containerId } = await runtime.ensure(spec);
    await runtime.start(containerId);
    expect(await ask(spec, "/anything")).toEqual([4, "x"]);
  });

  it("remove the volume and the marker", async () => {
    await using runtime = openMemoryRuntime();
    const spec = await makeSpec();
    await runtime.ensure(spec);
    runtime.loseVolume(spec.volumeName);
    expect(await runtime.hasData(spec.volumeName)).toBe(false);
    await runtime.markInstance();
    runtime.loseMarker();
    expect(await failureOf(runtime.check())).toBe("changed");
  });
});
