import AsyncLock from "async-lock";
import { mkdir, readFile, realpath } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { toErrorMessage } from "../../errors.ts";
import type { Log } from "../../log.ts";
import {
  RuntimeFailure,
  toContainerName,
  type ContainerSpec,
  type EngineRuntime,
  type EnsuredContainer,
} from "../engine-runtime.ts";
import { EventHub } from "../event-hub.ts";
import {
  killProcess,
  pauseProcess,
  removeProcess,
  startProcess,
  stopProcess,
  unpauseProcess,
} from "./containers.ts";
import { findOwnCgroup } from "./cgroup.ts";
import { ContainerStore } from "./container-store.ts";
import type { ProcessContext } from "./context.ts";
import { ProcessLogs } from "./logs.ts";
import { observeProcesses, readProcessStats } from "./observe.ts";
import { ProcessScan } from "./process-scan.ts";
import { EngineRemains } from "./remains.ts";
import { Spawner } from "./spawner.ts";
import { VolumeStore } from "./volume-store.ts";
import { ProcessWatch } from "./watch.ts";

export interface ProcessRuntimeOptions {
  instanceId: string;
  /** Whether the database records a marked runtime. If so, `check` requires the marker. */
  marked: boolean;
  /** Engines are kept in its folder `engines`. The caller has locked it, so only one replica uses it. */
  dataDir: string;
  /** The program of every engine, by path or by a name that its PATH finds, and its arguments. */
  command: readonly string[];
  /** The values that engines get from this service's own environment, by name. They are never stored. */
  passthrough?: Readonly<Record<string, string>>;
  /** False: engines get no cgroups of their own, as where the system lets us make none. */
  useCgroups?: boolean;
  log: Pick<Log, "warn">;
}

/** Runs engines as processes of this machine. They outlive the replica, and the next replica finds them again. */
export async function openProcessRuntime(options: ProcessRuntimeOptions): Promise<EngineRuntime> {
  const { instanceId, log, command, passthrough = {}, useCgroups = true } = options;
  await mkdir(options.dataDir, { recursive: true });
  const dataDir = await realpath(options.dataDir);
  const root = join(dataDir, "engines");
  const store = new ContainerStore({ root, instanceId, passthrough });
  await store.open();
  const volumes = new VolumeStore(root, instanceId);
  await volumes.open();
  const events = new EventHub();
  const logs = new ProcessLogs();
  const cgroupParent = useCgroups ? findOwnCgroup() : undefined;
  const scan = new ProcessScan(store.containersPath);
  const remains = new EngineRemains({ store, scan, cgroupParent });
  const watch = new ProcessWatch({ store, remains, events, logs, log });
  await watch.adoptAll();
  // By default the library rejects a call when 1,000 others wait for the same key.
  const locks = new AsyncLock({ maxPending: Infinity });
  const spawner = new Spawner();
  const ctx = { store, volumes, locks, events, logs, watch, remains, spawner, cgroupParent, command };
  return toRuntime(ctx, { host: `process:${await readMachineId()}:${dataDir}`, marked: options.marked });
}

function toRuntime(ctx: ProcessContext, { host, marked }: { host: string; marked: boolean }): EngineRuntime {
  const { store, volumes, locks } = ctx;
  let isMarked = marked;
  const withLock = (containerId: string, work: () => Promise<void>) =>
    attempt(() => locks.acquire(containerId, work));
  return {
    kind: "process",
    publishesHostPorts: true,
    startsOnEnsure: false,
    host,
    check: () =>
      attempt(async () => {
        if (!isMarked || (await volumes.hasMarker())) return;
        const problem = `the file ${volumes.markerPath} is missing: another data directory is in its place`;
        throw new RuntimeFailure("changed", `${problem}, or an operator calls fleet.acceptRuntime`);
      }),
    markInstance: () =>
      attempt(async () => {
        await volumes.createMarker();
        isMarked = true;
      }),
    findImage: async (image) => image,
    resolveImage: async (image) => image,
    ensure: (spec) => attempt(() => ensureContainer(ctx, spec)),
    start: (containerId) => withLock(containerId, () => startProcess(ctx, containerId)),
    pause: (containerId) => withLock(containerId, () => pauseProcess(ctx, containerId)),
    unpause: (containerId) => withLock(containerId, () => unpauseProcess(ctx, containerId)),
    stop: (containerId, graceSeconds) =>
      withLock(containerId, () => stopProcess(ctx, containerId, graceSeconds)),
    remove: async (containerId) => {
      await attempt(() => killProcess(ctx, containerId));
      await withLock(containerId, () => removeProcess(ctx, containerId));
    },
    removeData: (volumeName) => attempt(() => removeData(ctx, volumeName)),
    hasData: (volumeName) => attempt(() => volumes.has(volumeName)),
    observe: (engineId) => attempt(() => observeProcesses(ctx, engineId)),
    observeAll: () =>
      attempt(async () => ({
        containers: await observeProcesses(ctx),
        volumes: await volumes.list(),
      })),
    events: (signal) => ctx.events.read(signal),
    logs: (containerId, tail) =>
      attempt(async () => ctx.logs.tail(store.logFilesOf(await store.get(containerId)), tail)),
    measureVolumes: () => attempt(() => volumes.measure()),
    findOpenTargets: async () => [],
    stats: (containerId) => attempt(() => readProcessStats(ctx, containerId)),
    async removeInstance() {
      const observed = await this.observeAll();
      for (const { containerId } of observed.containers) await this.remove(containerId);
      for (const { volumeName } of observed.volumes) await this.removeData(volumeName);
      await attempt(() => volumes.removeMarker());
    },
    async [Symbol.asyncDispose]() {
      await ctx.watch.close();
      await ctx.spawner[Symbol.asyncDispose]();
    },
  };
}

async function ensureContainer(
  { store, volumes, locks }: ProcessContext,
  spec: ContainerSpec,
): Promise<EnsuredContainer> {
  return locks.acquire(toContainerName(spec), async () => {
    // Refuses a wrong name before anything is created.
    store.nameOf({ spec });
    await volumes.ensure(spec.volumeName, spec.engineId);
    return store.ensure(spec);
  });
}

/** Like a Docker daemon, refuses to remove a volume that a container uses. */
async function removeData(ctx: ProcessContext, volumeName: string): Promise<void> {
  const engineId = await ctx.volumes.findEngine(volumeName);
  const containers = engineId === undefined ? [] : await ctx.store.listOf(engineId);
  const user = containers.find(({ spec }) => spec.volumeName === volumeName);
  if (user !== undefined) {
    const message = `the volume ${volumeName} is in use: remove the container ${user.containerId} first`;
    throw new RuntimeFailure("refused", message);
  }
  await ctx.volumes.remove(volumeName);
}

/** Turns every error into a RuntimeFailure. */
async function attempt<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RuntimeFailure) throw error;
    throw new RuntimeFailure("refused", toErrorMessage(error), error);
  }
}

async function readMachineId(): Promise<string> {
  // Some systems have no such file, and some container images have an empty one.
  const machineId = await readFile("/etc/machine-id", "utf8").catch(() => "");
  return machineId.trim() || hostname();
}
