import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { once } from "node:events";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ContainerSpec, EngineRuntime } from "../../../server/runtime/engine-runtime.ts";
import { findOwnCgroup } from "../../../server/runtime/process/cgroup.ts";
import { findProcess } from "../../../server/runtime/process/process-table.ts";
import { openProcessRuntime } from "../../../server/runtime/process/runtime.ts";
import type { GhostKind } from "../../support/ghost-engine.ts";
import { ask, failureOf, observeOne, quietLog } from "../../support/runtime-harness.ts";
import { makeSpec } from "../../support/runtime-spec.ts";
import { openTempDir, type TempDir } from "../../support/temp-dir.ts";

const ENGINE = join(import.meta.dirname, "..", "..", "support", "ghost-engine.ts");
const isLinux = process.platform === "linux";

/** Which ghosts are found. `exited`: after the engine has exited by itself, its descendants are unknown. */
const MODES: {
  mode: string;
  useCgroups: boolean;
  isPossible: boolean;
  kinds: GhostKind[];
  exited: GhostKind[];
}[] = [
  {
    mode: "with a cgroup for each start",
    useCgroups: true,
    isPossible: findOwnCgroup() !== undefined,
    kinds: ["environment", "escaped", "log", "parent", "nothing"],
    exited: ["environment", "escaped", "log", "parent", "nothing"],
  },
  {
    mode: "without cgroups",
    useCgroups: false,
    isPossible: isLinux,
    kinds: ["environment", "log", "parent"],
    exited: ["environment", "log"],
  },
];

describe.each(MODES)("$mode", ({ useCgroups, isPossible, kinds, exited }) => {
  const instanceId = `ghosts-${randomUUID()}`;
  let dataDir: TempDir;
  let runtime: EngineRuntime;

  const open = () =>
    openProcessRuntime({
      instanceId,
      marked: false,
      dataDir: dataDir.path,
      command: [process.execPath, ENGINE],
      useCgroups,
      log: quietLog,
    });
  const readPid = async (spec: ContainerSpec, file: "engine" | "ghost") =>
    Number(
      await readFile(join(dataDir.path, "engines", "volumes", spec.volumeName, file), "utf8").catch(() => 0),
    );

  /** Boots an engine whose ghost listens already. */
  async function bootWithGhost(
    kind: GhostKind,
  ): Promise<{ spec: ContainerSpec; containerId: string; ghost: number }> {
    const spec = await makeSpec({
      environment: { FIXTURE_GHOST: kind, FIXTURE_CGROUP: findOwnCgroup() ?? "" },
    });
    const { containerId } = await runtime.ensure(spec);
    await runtime.start(containerId);
    for (const file of ["ghost", "engine"] as const) {
      await expect.poll(() => readPid(spec, file)).toBeGreaterThan(0);
    }
    const ghost = await readPid(spec, "ghost");
    expect(await isAlive(ghost)).toBe(true);
    return { spec, containerId, ghost };
  }

  beforeAll(async () => {
    dataDir = await openTempDir();
    runtime = await open();
  });

  afterAll(async () => {
    await runtime.removeInstance();
    await runtime[Symbol.asyncDispose]();
    await dataDir.close();
  });

  it.skipIf(!isPossible).each(kinds)(
    "a stop ends a ghost of the kind %s, and the next engine on its port answers alone",
    async (kind) => {
      const { spec, containerId, ghost } = await bootWithGhost(kind);
      await runtime.stop(containerId, 5);
      expect(await isAlive(ghost)).toBe(false);
      const next = await makeSpec({ hostPort: spec.hostPort });
      const { containerId: nextId } = await runtime.ensure(next);
      await runtime.start(nextId);
      await expect.poll(() => ask(next, "/")).toMatchObject({ status: "ok" });
      const { pid } = (await ask(next, "/")) as { pid: number };
      expect(pid).toBe(await readPid(next, "engine"));
      await runtime.stop(nextId, 5);
    },
  );

  it.skipIf(!isPossible).each(kinds)("a removal ends a ghost of the kind %s", async (kind) => {
    const { containerId, ghost } = await bootWithGhost(kind);
    await runtime.remove(containerId);
    expect(await isAlive(ghost)).toBe(false);
  });

  it.skipIf(!isPossible).each(exited)(
    "the exit of an engine ends a ghost of the kind %s before the exit is reported",
    async (kind) => {
      const { spec, ghost } = await bootWithGhost(kind);
      process.kill(await readPid(spec, "engine"), "SIGKILL");
      await expect.poll(async () => (await observeOne(runtime, spec.engineId)).state).toBe("exited");
      expect(await isAlive(ghost)).toBe(false);
    },
  );

  it.skipIf(!isPossible)(
    "the next replica ends a ghost of an engine that an earlier replica started",
    async () => {
      const { containerId, ghost } = await bootWithGhost("environment");
      await using next = await open();
      await next.stop(containerId, 5);
      expect(await isAlive(ghost)).toBe(false);
    },
  );

  it.skipIf(!isPossible)("a stop leaves other engines and their children alone", async () => {
    const other = await bootWithGhost("environment");
    const { containerId } = await bootWithGhost("environment");
    await runtime.stop(containerId, 5);
    expect((await observeOne(runtime, other.spec.engineId)).state).toBe("running");
    expect(await isAlive(other.ghost)).toBe(true);
    await runtime.stop(other.containerId, 5);
  });

  it("an engine does not start on a port at which another program answers, even if both would share it", async () => {
    const spec = await makeSpec();
    const { containerId } = await runtime.ensure(spec);
    const server = createServer((_, response) => response.end());
    server.listen({ port: spec.hostPort, host: "127.0.0.1", reusePort: isLinux });
    await once(server, "listening");
    try {
      expect(await failureOf(runtime.start(containerId))).toBe("port_taken");
    } finally {
      server.close();
      await once(server, "close");
    }
    await runtime.start(containerId);
    await expect.poll(() => ask(spec, "/")).toMatchObject({ status: "ok" });
  });
});

/** Zombies are gone: an orphan stays a zombie on a machine without an init process. */
async function isAlive(pid: number): Promise<boolean> {
  const row = await findProcess(pid);
  return row !== undefined && row.state !== "zombie";
}
