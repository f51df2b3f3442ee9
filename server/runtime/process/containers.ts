import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { RuntimeFailure } from "../engine-runtime.ts";
import type { RuntimeEvent } from "../engine-runtime.ts";
import type { ProcessContext } from "./context.ts";
import { toProcessEnvironment } from "./environment.ts";
import { killGroup, signalGroup, waitForState } from "./group.ts";
import { readRun, readRunState } from "./run.ts";
import type { ProcessRun } from "./run.ts";
import { spawnProcess } from "./spawn.ts";
import type { ProcessContainer } from "./store.ts";

/** A signal needs a moment to arrive, not seconds. */
const SIGNAL_TIMEOUT_MS = 5_000;

export async function startProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const container = await getContainer(ctx, containerId);
  const live = await findLive(ctx, container);
  if (live?.state === "paused") {
    throw new RuntimeFailure("refused", "a paused container is unpaused, not started");
  }
  if (live !== undefined) return;
  await assertPortFree(container.spec.hostPort);
  const { store } = ctx;
  const tempPath = store.pathOf(container, "tmp");
  await rm(tempPath, { recursive: true, force: true });
  await mkdir(tempPath, { mode: 0o700 });
  const pidFile = store.pathOf(container, "pid");
  const tokenFile = store.pathOf(container, "start");
  const token = randomBytes(8).toString("hex");
  await writeFile(tokenFile, `${token}\n`, { mode: 0o600 });
  // An orchestrator that died in the middle of a start may have left a child that gets on only now: see the script.
  await endStrays(ctx, container);
  if ((await findLive(ctx, container)) !== undefined) return;
  await rm(pidFile, { force: true });
  const dataPath = store.volumePath(container.spec.volumeName);
  const { run, exited } = await spawnProcess({
    command: ctx.command,
    environment: toProcessEnvironment({ ...ctx, spec: container.spec, dataPath, tempPath }),
    pidFile,
    tokenFile,
    token,
    stdoutFile: store.pathOf(container, "stdout.log"),
    stderrFile: store.pathOf(container, "stderr.log"),
  });
  if (run === undefined)
    throw new RuntimeFailure("refused", "the engine's process could not write its pid file");
  ctx.watch.add(container, run, exited);
  emit(ctx, container, "start");
}

export async function pauseProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const { container, run, state } = await getLive(ctx, containerId);
  if (state === "paused") return;
  signalGroup(run, "SIGSTOP");
  await assertState(run, "paused");
  emit(ctx, container, "pause");
}

export async function unpauseProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const { container, run, state } = await getLive(ctx, containerId);
  if (state === "running") return;
  signalGroup(run, "SIGCONT");
  await assertState(run, "running");
  emit(ctx, container, "unpause");
}

export async function stopProcess(
  ctx: ProcessContext,
  containerId: string,
  graceSeconds: number,
): Promise<void> {
  const container = await getContainer(ctx, containerId);
  const live = await findLive(ctx, container);
  if (live === undefined) return;
  emit(ctx, container, "kill");
  signalGroup(live.run, "SIGTERM");
  // A stopped process handles the signal once it goes on.
  signalGroup(live.run, "SIGCONT");
  await waitForState(live.run, "gone", graceSeconds * 1000);
  await endProcess(ctx, container, live.run);
  emit(ctx, container, "stop");
}

/** Not within the mutex, so that it need not wait for the grace of a stop. */
export async function killProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const container = await ctx.store.findContainer(containerId);
  if (container === undefined) return;
  const run = await ctx.store.readRun(container);
  if (run === undefined || (await readRunState(run)) === "gone") return;
  signalGroup(run, "SIGKILL");
  emit(ctx, container, "kill");
  await waitForState(run, "gone", SIGNAL_TIMEOUT_MS);
}

export async function removeProcess(ctx: ProcessContext, containerId: string): Promise<void> {
  const container = await ctx.store.findContainer(containerId);
  if (container === undefined) return;
  const run = await ctx.store.readRun(container);
  if (run !== undefined) await endProcess(ctx, container, run);
  for (const file of ctx.store.logFilesOf(container)) ctx.logs.forget(file);
  await ctx.store.removeContainer(container);
  emit(ctx, container, "destroy");
}

export async function getContainer(ctx: ProcessContext, containerId: string): Promise<ProcessContainer> {
  const container = await ctx.store.findContainer(containerId);
  if (container !== undefined) return container;
  throw new RuntimeFailure("no_such_container", `no container ${containerId} of this instance`);
}

interface LiveProcess {
  run: ProcessRun;
  state: "running" | "paused";
}

/** undefined: it does not run, and its end, if it ever ran, is settled. */
async function findLive(ctx: ProcessContext, container: ProcessContainer): Promise<LiveProcess | undefined> {
  const run = await ctx.store.readRun(container);
  if (run === undefined) return undefined;
  const state = await readRunState(run);
  if (state === "gone") {
    await ctx.watch.settle(container, run);
    return undefined;
  }
  ctx.watch.adopt(container, run);
  return { run, state };
}

async function getLive(
  ctx: ProcessContext,
  containerId: string,
): Promise<LiveProcess & { container: ProcessContainer }> {
  const container = await getContainer(ctx, containerId);
  const live = await findLive(ctx, container);
  if (live === undefined) throw new RuntimeFailure("refused", `the container ${containerId} is not running`);
  return { ...live, container };
}

async function endProcess(ctx: ProcessContext, container: ProcessContainer, run: ProcessRun): Promise<void> {
  if ((await readRunState(run)) !== "gone") {
    emit(ctx, container, "kill");
    await killGroup(run);
  }
  await ctx.watch.settle(container, run);
}

/** A child that took its pid file meanwhile, and was ended, is found dead where it is looked for. */
async function endStrays({ store }: ProcessContext, container: ProcessContainer): Promise<void> {
  for (const pidFile of await store.listStrayPidFiles(container)) {
    const run = await readRun(pidFile);
    if (run !== undefined) await killGroup(run);
    await rm(pidFile, { force: true });
  }
}

async function assertState(run: ProcessRun, state: "running" | "paused"): Promise<void> {
  if (await waitForState(run, state, SIGNAL_TIMEOUT_MS)) return;
  throw new RuntimeFailure("refused", `the process ${run.pid} is not ${state} after the signal`);
}

async function assertPortFree(port: number): Promise<void> {
  const server = createServer();
  try {
    server.listen({ port, host: "127.0.0.1", exclusive: true });
    await once(server, "listening");
  } catch (error) {
    throw new RuntimeFailure("port_taken", `port ${port} of 127.0.0.1 cannot be bound`, error);
  }
  server.close();
  await once(server, "close");
}

function emit(ctx: ProcessContext, container: ProcessContainer, kind: RuntimeEvent["kind"]): void {
  ctx.events.emit({ kind, engineId: container.spec.engineId, containerId: container.containerId });
}
