import { execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ContainerSpec, EngineRuntime } from "../../../server/runtime/engine-runtime.ts";
import { openProcessRuntime } from "../../../server/runtime/process/runtime.ts";
import { findProcess } from "../../../server/runtime/process/process-table.ts";
import {
  ask,
  boot,
  failureOf,
  observeOne,
  quietLog,
  recordEvents,
  untilHealthy,
} from "../../support/runtime-harness.ts";
import { FIXTURE_KEY_HASH, makeSpec } from "../../support/runtime-spec.ts";
import { openTempDir, type TempDir } from "../../support/temp-dir.ts";

const FIXTURE = join(import.meta.dirname, "..", "..", "support", "runtime-fixture-engine.ts");
const DYING_SPAWN = join(import.meta.dirname, "..", "..", "support", "runtime-dying-spawn.ts");
const DYING_REPLICA = join(import.meta.dirname, "..", "..", "support", "runtime-dying-replica.ts");
const COMMAND = [process.execPath, FIXTURE];

interface About {
  pid: number;
  childPid: number;
  cwd: string;
  environment: Record<string, string>;
}

describe("the process runtime's engines", () => {
  const instanceId = `process-${randomUUID()}`;
  let dataDir: TempDir;
  let runtime: EngineRuntime;
  const orphans: number[] = [];

  const open = (command: readonly string[] = COMMAND, passthrough: Record<string, string> = {}) =>
    openProcessRuntime({
      instanceId,
      marked: false,
      dataDir: dataDir.path,
      command,
      passthrough,
      log: quietLog,
    });
  const folderOf = (spec: ContainerSpec) =>
    join(dataDir.path, "engines", "containers", `engine-${spec.engineId}-${spec.incarnation}`);

  beforeAll(async () => {
    dataDir = await openTempDir();
    runtime = await open();
  });

  afterAll(async () => {
    continueOrphans();
    await runtime.removeInstance();
    await runtime[Symbol.asyncDispose]();
    await dataDir.close();
  });

  it.skipIf(!existsSync("/proc/self/autogroup"))(
    "get less of the processor than the service while both want it",
    async () => {
      const spec = await makeSpec({ catalogPath: dataDir.path });
      await boot(runtime, spec);
      const { pid } = await about(spec);
      expect(await readFile(`/proc/${pid}/autogroup`, "utf8")).toMatch(/ nice 10$/m);
    },
  );

  it("get the contract's environment with this machine's paths, and no other variable", async () => {
    process.env["ORCH_SECRET_OF_OURS"] = "must not leak";
    const spec = await makeSpec({
      catalogPath: dataDir.path,
      environment: { ANTHROPIC_API_KEY: "a key with 'quotes', $signs\nand a newline" },
    });
    await boot(runtime, spec);
    delete process.env["ORCH_SECRET_OF_OURS"];
    const data = join(dataDir.path, "engines", "volumes", spec.volumeName);
    const { environment } = await about(spec);
    expect(environment).toEqual({
      ANTHROPIC_API_KEY: "a key with 'quotes', $signs\nand a newline",
      ENGINE_KEY_HASH: FIXTURE_KEY_HASH,
      SQLITE_DB_PATH: join(data, "brain.sqlite"),
      CATALOG_DIR: dataDir.path,
      ENGINE_HOST: "127.0.0.1",
      ENGINE_PORT: String(spec.hostPort),
      PATH: expect.stringContaining("/usr/bin"),
      LANG: "C.UTF-8",
      HOME: data,
      TMPDIR: join(folderOf(spec), "tmp"),
    });
    expect((await stat(environment["TMPDIR"] ?? "")).isDirectory()).toBe(true);
  });

  it("get passed-through values at each start from the service's environment, and no file holds such a value", async () => {
    const first = "sk-first-secret";
    const spec = await makeSpec({ environment: { OPENAI_API_KEY: first, GEMINI_API_KEY: first } });
    await using early = await open(COMMAND, { OPENAI_API_KEY: first, GEMINI_API_KEY: first });
    const containerId = await boot(early, spec);
    expect((await about(spec)).environment).toMatchObject({ OPENAI_API_KEY: first, GEMINI_API_KEY: first });
    expect(await filesWith(first)).toEqual([]);
    await early.stop(containerId, 10);
    // After a restart of the service, one value has changed and the other one is not passed through any more.
    await using next = await open(COMMAND, { OPENAI_API_KEY: "sk-next" });
    await next.start(containerId);
    await untilHealthy(spec);
    const { environment } = await about(spec);
    expect(environment).toMatchObject({ OPENAI_API_KEY: "sk-next", ENGINE_KEY_HASH: FIXTURE_KEY_HASH });
    expect(environment).not.toHaveProperty("GEMINI_API_KEY");
    await next.remove(containerId);
  });

  it("of older versions are found, and lose the passed-through values in their files", async () => {
    const secret = "sk-of-an-older-version";
    const spec = await makeSpec({ environment: { OPENAI_API_KEY: secret } });
    const container = { containerId: `engine-${spec.engineId}-1.0123abcd`, instanceId, spec };
    await mkdir(folderOf(spec), { recursive: true });
    await writeFile(join(folderOf(spec), "container.json"), JSON.stringify(container));
    await using next = await open(COMMAND, { OPENAI_API_KEY: secret });
    expect(await filesWith(secret)).toEqual([]);
    expect(await observeOne(next, spec.engineId)).toMatchObject({
      state: "created",
      keyHash: FIXTURE_KEY_HASH,
    });
    await boot(next, spec);
    expect((await about(spec)).environment).toMatchObject({ OPENAI_API_KEY: secret });
    await next.remove(container.containerId);
    expect(await next.observe(spec.engineId)).toEqual([]);
  });

  it("are found and listed without a look at other engines, and are gone once their folder is deleted by hand", async () => {
    const [spec, other] = [await makeSpec(), await makeSpec()];
    await runtime.ensure(spec);
    await runtime.ensure(other);
    await using next = await open();
    // A listing of all containers would fail on this one.
    await writeFile(join(folderOf(other), "container.json"), "not JSON");
    expect(await next.observe(spec.engineId)).toHaveLength(1);
    await rm(folderOf(spec), { recursive: true });
    expect(await runtime.observe(spec.engineId)).toEqual([]);
    expect(await next.observe(spec.engineId)).toEqual([]);
    await rm(folderOf(other), { recursive: true });
  });

  it("have files that other users of the machine cannot read", async () => {
    const spec = await makeSpec();
    await runtime.ensure(spec);
    expect((await stat(folderOf(spec))).mode & 0o777).toBe(0o700);
    expect((await stat(join(folderOf(spec), "container.json"))).mode & 0o777).toBe(0o600);
    const data = join(dataDir.path, "engines", "volumes", spec.volumeName);
    expect((await stat(data)).mode & 0o777).toBe(0o700);
  });

  it("leave no file behind after their removal", async () => {
    const spec = await makeSpec();
    const containerId = await boot(runtime, spec);
    await runtime.remove(containerId);
    await runtime.removeData(spec.volumeName);
    const files = await readdir(join(dataDir.path, "engines"), { recursive: true });
    expect(files.filter((file) => file.includes(spec.engineId) || file.includes("removed-"))).toEqual([]);
  });

  it("lead a process group, and a stop ends the whole group", async () => {
    const spec = await makeSpec({ environment: { FIXTURE_CHILD: "1" } });
    const containerId = await boot(runtime, spec);
    const { pid, childPid } = await about(spec);
    expect(await groupOf(pid)).toBe(pid);
    expect(await groupOf(childPid)).toBe(pid);
    await runtime.stop(containerId, 10);
    expect(await isAlive(pid)).toBe(false);
    expect(await isAlive(childPid)).toBe(false);
  });

  it("end with their whole process group if they exit by themselves", async () => {
    const spec = await makeSpec({ environment: { FIXTURE_CHILD: "1" } });
    await boot(runtime, spec);
    const { childPid } = await about(spec);
    await ask(spec, "/exit?code=5");
    await expect
      .poll(async () => await observeOne(runtime, spec.engineId))
      .toMatchObject({ state: "exited", exitCode: 5 });
    expect(await isAlive(childPid)).toBe(false);
  });

  it("do not start with a missing command, and the failure names the command", async () => {
    const spec = await makeSpec();
    for (const command of [["no-such-program", "x"], ["/no/such/program"], [FIXTURE], []]) {
      await using broken = await open(command);
      const { containerId } = await broken.ensure(spec);
      const failure = await broken.start(containerId).catch((error: unknown) => error);
      expect(failure).toMatchObject({ kind: "refused", message: expect.stringContaining(command[0] ?? "") });
      expect((await observeOne(broken, spec.engineId)).state).toBe("created");
    }
  });

  it("start with a program from PATH, in the replica's working directory", async () => {
    await using other = await openProcessRuntime({
      instanceId,
      marked: false,
      dataDir: dataDir.path,
      command: ["env", process.execPath, "test/support/runtime-fixture-engine.ts"],
      log: quietLog,
    });
    const spec = await makeSpec();
    await boot(other, spec);
    expect((await about(spec)).cwd).toBe(process.cwd());
  });

  it("outlive a killed replica, and the next replica finds them and notices their end", async () => {
    const spec = await makeSpec();
    await killReplicaAfter("start", spec);
    await untilHealthy(spec);
    await using next = await open();
    const found = await observeOne(next, spec.engineId);
    expect(found).toMatchObject({ state: "running", exitCode: null });
    await next.start(found.containerId);
    expect(await observeOne(next, spec.engineId)).toEqual(found);
    await using record = recordEvents(next);
    await ask(spec, "/exit?code=9");
    await expect.poll(() => record.events.map(({ kind }) => kind)).toEqual(["die"]);
    // The parent of the process is dead, so the exit code is unknown.
    expect(await observeOne(next, spec.engineId)).toEqual({ ...found, state: "exited", exitCode: null });
  });

  it("are never started twice, even if replicas die during the start", async (test) => {
    if (process.platform !== "linux") return test.skip("this system does not show a replica its children");
    const spec = await makeSpec();
    for (let round = 0; round < 3; round += 1) await killReplicaAfter("spawn", spec);
    await using next = await open();
    const { containerId } = await next.ensure(spec);
    await next.start(containerId);
    await untilHealthy(spec);
    const { pid } = await about(spec);
    continueOrphans();
    await expect.poll(async () => countProcesses(spec)).toBe(1);
    expect((await about(spec)).pid).toBe(pid);
    expect(await observeOne(next, spec.engineId)).toMatchObject({ containerId, state: "running" });
    await next.remove(containerId);
    expect(await isAlive(pid)).toBe(false);
    await expect.poll(async () => countProcesses(spec)).toBe(0);
  });

  it("that continue after their replica died in the start are adopted, and their end is noticed", async (test) => {
    if (process.platform !== "linux") return test.skip("this system does not show a replica its children");
    const spec = await makeSpec();
    const orphan = await killReplicaAfter("spawn", spec);
    await using next = await open();
    continueOrphans();
    await untilHealthy(spec);
    const { containerId } = await next.ensure(spec);
    await next.start(containerId);
    expect((await about(spec)).pid).toBe(orphan);
    await using record = recordEvents(next);
    await ask(spec, "/exit?code=9");
    await expect.poll(() => record.events.map(({ kind }) => kind)).toEqual(["die"]);
  });

  it("a start kills a child of an earlier start that has not checked its token yet", async (test) => {
    if (process.platform !== "linux") return test.skip("this system identifies processes by start time only");
    const spec = await makeSpec();
    const { containerId } = await runtime.ensure(spec);
    const undecided = spawn(process.execPath, ["-e", "setInterval(() => {}, 1e6)"], { detached: true });
    const ended = once(undecided, "exit");
    try {
      await once(undecided, "spawn");
      const bootId = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
      const statLine = await readFile(`/proc/${undecided.pid}/stat`, "utf8");
      await writeFile(join(folderOf(spec), "pid.0123"), `${undecided.pid}\n${bootId}${statLine}`);
      await runtime.start(containerId);
      await expect.poll(() => undecided.signalCode).toBe("SIGKILL");
    } finally {
      undecided.kill("SIGTERM");
      await ended;
    }
    await untilHealthy(spec);
    expect(await readdir(folderOf(spec))).not.toContain("pid.0123");
    await runtime.remove(containerId);
  });

  it("are gone if another process has their pid, and that process stays untouched", async () => {
    const spec = await makeSpec();
    const containerId = await boot(runtime, spec);
    await runtime.stop(containerId, 10);
    const pidFile = join(folderOf(spec), "pid");
    const [, bootId, statLine] = (await readFile(pidFile, "utf8")).split("\n");
    const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1e6)"], { detached: true });
    try {
      await once(other, "spawn");
      const { mtime } = await stat(pidFile);
      await writeFile(pidFile, `${other.pid}\n${bootId}\n${statLine}\n`);
      await utimes(pidFile, mtime, mtime);
      await using next = await open();
      expect((await observeOne(next, spec.engineId)).state).toBe("exited");
      await next.stop(containerId, 0);
      await next.remove(containerId);
      expect(await isAlive(other.pid ?? 0)).toBe(true);
    } finally {
      other.kill("SIGKILL");
      await once(other, "exit");
    }
  });

  it("are gone after a reboot, even if another process has their pid and start time", async (test) => {
    if (process.platform !== "linux") return test.skip("this system identifies processes by start time only");
    const spec = await makeSpec();
    const containerId = await boot(runtime, spec);
    const pidFile = join(folderOf(spec), "pid");
    const content = await readFile(pidFile, "utf8");
    const { mtime } = await stat(pidFile);
    await writeFile(pidFile, content.replace(/^[0-9a-f-]{36}$/m, randomUUID()));
    await utimes(pidFile, mtime, mtime);
    await using next = await open();
    expect((await observeOne(next, spec.engineId)).state).toBe("exited");
    await writeFile(pidFile, content);
    await utimes(pidFile, mtime, mtime);
    expect((await observeOne(runtime, spec.engineId)).state).toBe("running");
    await runtime.remove(containerId);
  });

  it("start in a container folder that an interrupted creation left", async () => {
    const spec = await makeSpec();
    await mkdir(folderOf(spec), { recursive: true });
    expect(await runtime.observe(spec.engineId)).toEqual([]);
    await boot(runtime, spec);
  });

  it("cannot have names that lead out of their folder", async () => {
    expect(await failureOf(runtime.ensure(await makeSpec({ volumeName: "../outside" })))).toBe("refused");
    expect(await failureOf(runtime.ensure({ ...(await makeSpec()), engineId: "../x" }))).toBe("refused");
    expect(await failureOf(runtime.hasData("a/b"))).toBe("refused");
  });

  it("are on a changed runtime if the marker is another installation's", async () => {
    await runtime.markInstance();
    await using another = await openProcessRuntime({
      instanceId: "another",
      marked: true,
      dataDir: dataDir.path,
      command: COMMAND,
      log: quietLog,
    });
    expect(await failureOf(another.check())).toBe("changed");
    await runtime.check();
  });

  async function filesWith(text: string): Promise<string[]> {
    const entries = await readdir(dataDir.path, { recursive: true, withFileTypes: true });
    const paths = entries
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name));
    const contents = await Promise.all(paths.map((path) => readFile(path, "utf8").catch(() => "")));
    return paths.filter((_, index) => contents[index]?.includes(text));
  }

  function continueOrphans(): void {
    for (const orphan of orphans.splice(0)) process.kill(orphan, "SIGCONT");
  }

  /** Runs a replica that kills itself at this point. After `spawn` it leaves a child; returns the child's pid. */
  async function killReplicaAfter(point: "spawn" | "start", spec: ContainerSpec): Promise<number> {
    const input = JSON.stringify({ spec, instanceId, dataDir: dataDir.path, command: COMMAND });
    const preload = point === "spawn" ? ["--import", DYING_SPAWN] : [];
    const replica = spawn(process.execPath, [...preload, DYING_REPLICA, input], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const output = text(replica.stdout);
    const [, signal] = (await once(replica, "exit")) as [number | null, string | null];
    expect(signal).toBe("SIGKILL");
    const orphan = Number(await output);
    if (point === "spawn") orphans.push(orphan);
    return orphan;
  }
});

async function about(spec: ContainerSpec): Promise<About> {
  return (await ask(spec, "/about")) as About;
}

/** Zombies are not alive: an orphan stays a zombie on a machine without an init process. */
async function isAlive(pid: number): Promise<boolean> {
  const row = await findProcess(pid);
  return row !== undefined && row.state !== "zombie";
}

async function groupOf(pid: number): Promise<number> {
  const { stdout } = await promisify(execFile)("ps", ["-o", "pgid=", "-p", String(pid)]);
  return Number(stdout.trim());
}

/** Counts the processes whose environment names this engine's data. */
async function countProcesses(spec: ContainerSpec): Promise<number> {
  const { stdout } = await promisify(execFile)("ps", ["-axeww", "-o", "command="], { maxBuffer: 2 ** 26 });
  return stdout.split("\n").filter((line) => line.includes(`/engine-data-${spec.engineId}/brain.sqlite`))
    .length;
}
