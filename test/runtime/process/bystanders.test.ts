import { spawn, type ChildProcess, type SpawnOptions } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { openSync } from "node:fs";
import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  createCgroup,
  endCgroup,
  findOwnCgroup,
  toCgroupPath,
} from "../../../server/runtime/process/cgroup.ts";
import type { EngineProcess } from "../../../server/runtime/process/engine-process.ts";
import { findInEnvironment, type ScannedProcess } from "../../../server/runtime/process/process-scan.ts";
import { toMembers } from "../../../server/runtime/process/remains.ts";
import { openProcessRuntime } from "../../../server/runtime/process/runtime.ts";
import { boot, quietLog } from "../../support/runtime-harness.ts";
import { makeSpec } from "../../support/runtime-spec.ts";
import { openTempDir, type TempDir } from "../../support/temp-dir.ts";

const ENGINE = join(import.meta.dirname, "..", "..", "support", "ghost-engine.ts");
const isLinux = process.platform === "linux";
const ownCgroup = findOwnCgroup();

let dataDir: TempDir;
let programs: ChildProcess[];

beforeEach(async () => {
  dataDir = await openTempDir();
  programs = [];
});
afterEach(async () => {
  for (const program of programs) program.kill("SIGKILL");
  await dataDir.close();
});

const openRuntime = (useCgroups: boolean) =>
  openProcessRuntime({
    instanceId: `bystanders-${randomUUID()}`,
    marked: false,
    dataDir: dataDir.path,
    command: [process.execPath, ENGINE],
    useCgroups,
    log: quietLog,
  });

async function start(command: string, args: string[], options: SpawnOptions = {}): Promise<ChildProcess> {
  const program = spawn(command, args, { stdio: "ignore", ...options });
  programs.push(program);
  await once(program, "spawn");
  return program;
}

test.skipIf(!isLinux).each([true, false])(
  "a stop and a removal end no program of a person who looks at the container's folder (cgroups: %s)",
  async (useCgroups) => {
    await using runtime = await openRuntime(useCgroups);
    const containerId = await boot(runtime, await makeSpec());
    const folder = join(
      dataDir.path,
      "engines",
      "containers",
      containerId.slice(0, containerId.lastIndexOf(".")),
    );
    const log = join(folder, "stdout.log");
    const env = process.env;
    const bystanders = {
      // The inner program is a descendant of the shell.
      shell: await start("/bin/sh", ["-c", "sleep 60; true"], { cwd: folder }),
      tail: await start("tail", ["-f", log]),
      editor: await start("sleep", ["60"], { env: { ...env, OLDPWD: folder } }),
      reader: await start("sleep", ["60"], { stdio: ["ignore", openSync(log, "r"), openSync(log, "r")] }),
      writer: await start("sleep", ["60"], { stdio: ["ignore", openSync(log, "a"), "ignore"] }),
      temporary: await start("sleep", ["60"], {
        env: { ...env, TMPDIR: folder, NOTE: `TMPDIR=${folder}/tmp` },
      }),
    };
    await runtime.stop(containerId, 5);
    await runtime.remove(containerId);
    const ended = Object.entries(bystanders).filter(
      ([, { exitCode, signalCode }]) => exitCode !== null || signalCode !== null,
    );
    expect(ended.map(([name]) => name)).toEqual([]);
    await runtime.removeInstance();
  },
);

test("a stop never reaches this service, its ancestors, or other engines through them", async () => {
  const bootId = isLinux ? (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim() : "";
  const engineProcess: EngineProcess = {
    pid: 2 ** 30,
    startedAt: new Date().toISOString(),
    bootId,
    startTicks: "1",
    token: "",
  };
  const parent = process.ppid;
  const grandParent = 2 ** 30 + 1;
  const base = {
    groupId: 1,
    sessionId: 1,
    state: "running",
    startTicks: "9",
    startedAtMs: null,
    cpuNanoseconds: 0n,
    memoryBytes: null,
  } as const;
  const toRow = (pid: number, parentId: number, containerName?: string): ScannedProcess => ({
    ...base,
    pid,
    parentId,
    containerName,
  });
  const [member, child, other] = [2 ** 30 + 2, 2 ** 30 + 3, 2 ** 30 + 4];
  const processes = [
    toRow(grandParent, 1, "engine-a-1"),
    toRow(parent, grandParent, "engine-a-1"),
    toRow(process.pid, parent, "engine-a-1"),
    toRow(other, process.pid, "engine-b-1"),
    toRow(member, 1, "engine-a-1"),
    toRow(child, member),
    // A service that an engine started may have engines too.
    toRow(other + 1, member, "engine-b-1"),
    toRow(other + 2, other + 1),
  ];
  const search = { engineProcess, name: "engine-a-1", known: [toRow(process.pid, parent)] };
  expect(toMembers(processes, search).map(({ pid }) => pid)).toEqual([member, child]);
});

const find = (...entries: string[]) => findInEnvironment(`${entries.join("\0")}\0`, "/data/containers/");

test("only the exact TMPDIR of an engine marks its processes", () => {
  expect(find("A=1", "TMPDIR=/data/containers/engine-a-1/tmp", "B=2")).toBe("engine-a-1");
  expect(find("TMPDIR=/data/containers/engine-a-1/tmp")).toBe("engine-a-1");
  for (const entry of [
    "TMPDIR=/data/containers/engine-a-1",
    "TMPDIR=/data/containers/engine-a-1/tmp/other",
    "TMPDIR=/data/containers/engine-a-1/tmpx",
    "OLDPWD=/data/containers/engine-a-1/tmp",
    "MYTMPDIR=/data/containers/engine-a-1/tmp",
    "X=TMPDIR=/data/containers/engine-a-1/tmp",
  ]) {
    expect(find("A=1", entry), entry).toBeUndefined();
  }
});

test.skipIf(ownCgroup === undefined)("a stop ends no cgroup that an engine names in its folder", async () => {
  await using runtime = await openRuntime(true);
  const containerId = await boot(runtime, await makeSpec());
  const name = containerId.slice(0, containerId.lastIndexOf("."));
  const folder = join(dataDir.path, "engines", "containers", name);
  const foreign = await createCgroup(join(ownCgroup ?? "", `foreign-${randomUUID()}`));
  const program = await start("sleep", ["60"]);
  await writeFile(join(foreign ?? "", "cgroup.procs"), String(program.pid));
  await writeFile(join(folder, "cgroup"), `${foreign}\n`);
  const pidFile = join(folder, "pid");
  const [pid, bootId, stat] = (await readFile(pidFile, "utf8")).split("\n");
  await mkdir(join(ownCgroup ?? "", `enginehouse-${containerId}-`));
  await writeFile(pidFile, [pid, bootId, stat, `/../${foreign?.split("/").at(-1)}`, ""].join("\n"));
  await runtime.stop(containerId, 5);
  expect(program.signalCode).toBeNull();
  expect(program.exitCode).toBeNull();
  await rmdir(join(ownCgroup ?? "", `enginehouse-${containerId}-`));
  await endCgroup(foreign ?? "", 5_000);
  await runtime.removeInstance();
});

test("a cgroup's path has only tokens of the service", () => {
  expect(toCgroupPath("/sys/fs/cgroup/x", "engine-a-1.beef", "0123456789abcdef")).toBe(
    "/sys/fs/cgroup/x/enginehouse-engine-a-1.beef-0123456789abcdef",
  );
  for (const token of ["", "..", "/../../x", "0123456789abcdef/..", "0123456789abcdef\n"]) {
    expect(toCgroupPath("/sys/fs/cgroup/x", "engine-a-1.beef", token), token).toBeUndefined();
  }
});
