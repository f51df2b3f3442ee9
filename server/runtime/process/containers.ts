import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { getHostPort, RuntimeFailure, type RuntimeEvent } from "../engine-runtime.ts";
import { createCgroup, toCgroupPath } from "./cgroup.ts";
import type { ProcessContainer } from "./container-store.ts";
import type { ProcessContext } from "./context.ts";
import { readEngineProcess, readProcessState, type EngineProcess } from "./engine-process.ts";
import { assertPortFree } from "./port-check.ts";
import { signalGroup, waitForState } from "./process-group.ts";
import type { ProcessRow } from "./process-table.ts";
import { spawnProcess } from "./spawn.ts";

/** A signal takes effect within milliseconds, even on a loaded machine. */
const SIGNAL_TIMEOUT_MS = 5_000;
/** The PATH of every engine. */
const PATH = `${dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`;

export async function startProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const { store } = ctx;
  const container = await store.get(containerId);
  const live = await findLive(ctx, container);
  if (live?.state === "paused") {
    throw new RuntimeFailure("refused", `the container ${containerId} is paused: unpause it instead`);
  }
  if (live !== undefined) return;
  await assertPortFree(getHostPort(container.spec));
  const tempPath = store.pathOf(container, "tmp");
  await rm(tempPath, { recursive: true, force: true });
  await mkdir(tempPath, { mode: 0o700 });
  const pidFile = store.pathOf(container, "pid");
  const tokenFile = store.pathOf(container, "start");
  const token = randomBytes(8).toString("hex");
  await removeLeftCgroup(ctx, container);
  await writeFile(tokenFile, `${token}\n`, { mode: 0o600 });
  // A replica that died during a start may have left a child that continues only now. See the script of `spawnProcess`.
  await killStrays(ctx, container);
  if ((await findLive(ctx, container)) !== undefined) return;
  await rm(pidFile, { force: true });
  const cgroupPath = toCgroupPath(ctx.cgroupParent, containerId, token);
  const cgroup = cgroupPath && (await createCgroup(cgroupPath));
  const { engineProcess, exited } = await spawnProcess(ctx.spawner, {
    command: ctx.command,
    environment: toEnvironment(ctx, container, tempPath),
    pidFile,
    tokenFile,
    token,
    cgroup: cgroup ?? "",
    stdoutFile: store.pathOf(container, "stdout.log"),
    stderrFile: store.pathOf(container, "stderr.log"),
  });
  if (engineProcess === undefined) {
    throw new RuntimeFailure("refused", `the engine's process ended before it wrote its pid file ${pidFile}`);
  }
  ctx.watch.add(container, engineProcess, exited);
  emit(ctx, container, "start");
}

/** A replica that died in the latest start may have left a cgroup that no process has joined. */
async function removeLeftCgroup(ctx: ProcessContext, container: ProcessContainer): Promise<void> {
  const token = await readFile(ctx.store.pathOf(container, "start"), "utf8").catch(() => "");
  const cgroup = toCgroupPath(ctx.cgroupParent, container.containerId, token.trimEnd());
  // It is gone already after a start that succeeded. With processes in it, it stays.
  if (cgroup !== undefined) await rmdir(cgroup).catch(() => undefined);
}

/** The whole environment of an engine's process. It has nothing of this replica's environment. */
function toEnvironment(ctx: ProcessContext, container: ProcessContainer, tempPath: string) {
  const { spec } = container;
  // The folder that takes the place of the container's /data.
  const dataPath = ctx.volumes.pathOf(spec.volumeName);
  return {
    PATH,
    LANG: "C.UTF-8",
    ...ctx.store.toEnvironment(container),
    HOME: dataPath,
    TMPDIR: tempPath,
    SQLITE_DB_PATH: join(dataPath, "brain.sqlite"),
    CATALOG_DIR: spec.catalogPath,
    ENGINE_HOST: "127.0.0.1",
    ENGINE_PORT: String(getHostPort(spec)),
  };
}

export async function pauseProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const { container, engineProcess, state } = await getLive(ctx, containerId);
  if (state === "paused") return;
  signalGroup(engineProcess, "SIGSTOP");
  await assertState(engineProcess, "paused");
  emit(ctx, container, "pause");
}

export async function unpauseProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const { container, engineProcess, state } = await getLive(ctx, containerId);
  if (state === "running") return;
  signalGroup(engineProcess, "SIGCONT");
  await assertState(engineProcess, "running");
  emit(ctx, container, "unpause");
}

export async function stopProcess(
  ctx: ProcessContext,
  containerId: string,
  graceSeconds: number,
): Promise<void> {
  const container = await ctx.store.get(containerId);
  const live = await findLive(ctx, container);
  if (live === undefined) return;
  const known = await ctx.remains.listMembers(container, live.engineProcess);
  emit(ctx, container, "kill");
  signalGroup(live.engineProcess, "SIGTERM");
  // A paused process handles SIGTERM only after SIGCONT.
  signalGroup(live.engineProcess, "SIGCONT");
  await waitForState(live.engineProcess, "gone", graceSeconds * 1000);
  await endProcess(ctx, container, { ...live, known });
  emit(ctx, container, "stop");
}

/** Takes no lock, so a removal does not wait for the grace of a stop that runs now. */
export async function killProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const container = await ctx.store.find(containerId);
  if (container === undefined) return;
  const engineProcess = await ctx.store.readProcess(container);
  if (engineProcess === undefined || (await readProcessState(engineProcess)) === "gone") return;
  const known = await ctx.remains.listMembers(container, engineProcess);
  emit(ctx, container, "kill");
  await ctx.remains.end(container, engineProcess, known);
}

export async function removeProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const container = await ctx.store.find(containerId);
  if (container === undefined) return;
  const engineProcess = await ctx.store.readProcess(container);
  if (engineProcess !== undefined) await endProcess(ctx, container, { engineProcess, known: [] });
  for (const file of ctx.store.logFilesOf(container)) ctx.logs.forget(file);
  await removeLeftCgroup(ctx, container);
  await ctx.store.remove(container);
  emit(ctx, container, "destroy");
}

interface LiveProcess {
  engineProcess: EngineProcess;
  state: "running" | "paused";
}

/** undefined: the container's process does not run. If a process ran before, its end is recorded. */
async function findLive(ctx: ProcessContext, container: ProcessContainer): Promise<LiveProcess | undefined> {
  const engineProcess = await ctx.store.readProcess(container);
  if (engineProcess === undefined) return undefined;
  const state = await readProcessState(engineProcess);
  if (state === "gone") {
    await ctx.watch.recordEnd(container, engineProcess);
    return undefined;
  }
  ctx.watch.adopt(container, engineProcess);
  return { engineProcess, state };
}

async function getLive(
  ctx: ProcessContext,
  containerId: string,
): Promise<LiveProcess & { container: ProcessContainer }> {
  const container = await ctx.store.get(containerId);
  const live = await findLive(ctx, container);
  if (live === undefined) throw new RuntimeFailure("refused", `the container ${containerId} is not running`);
  return { ...live, container };
}

/** The end is recorded only when nothing is left of the engine. `known`: see `EngineRemains.end`. */
async function endProcess(
  ctx: ProcessContext,
  container: ProcessContainer,
  { engineProcess, known }: { engineProcess: EngineProcess; known: readonly ProcessRow[] },
): Promise<void> {
  if ((await readProcessState(engineProcess)) !== "gone") emit(ctx, container, "kill");
  await ctx.remains.end(container, engineProcess, known);
  await ctx.watch.recordEnd(container, engineProcess);
}

/** A stray child may take the pid file just before it is killed. Then `findLive` finds the process gone. */
async function killStrays(ctx: ProcessContext, container: ProcessContainer): Promise<void> {
  for (const pidFile of await ctx.store.listStrayPidFiles(container)) {
    const engineProcess = await readEngineProcess(pidFile);
    if (engineProcess !== undefined) await ctx.remains.endGroup(engineProcess);
    await rm(pidFile, { force: true });
  }
}

async function assertState(engineProcess: EngineProcess, state: "running" | "paused"): Promise<void> {
  if (await waitForState(engineProcess, state, SIGNAL_TIMEOUT_MS)) return;
  throw new RuntimeFailure(
    "refused",
    `the process ${engineProcess.pid} is not ${state} ${SIGNAL_TIMEOUT_MS} ms after the signal`,
  );
}

function emit(ctx: ProcessContext, container: ProcessContainer, kind: RuntimeEvent["kind"]): void {
  ctx.events.emit({ kind, engineId: container.spec.engineId, containerId: container.containerId });
}
