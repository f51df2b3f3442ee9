import AsyncLock from "async-lock";
import { mkdir, readFile, realpath } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { toErrorMessage } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { RuntimeFailure } from "../engine-runtime.ts";
import type { EngineRuntime } from "../engine-runtime.ts";
import { EventHub } from "../event-hub.ts";
import { toContainerName } from "../container-name.ts";
import {
  getContainer,
  killProcess,
  pauseProcess,
  removeProcess,
  startProcess,
  stopProcess,
  unpauseProcess,
} from "./containers.ts";
import type { ProcessContext } from "./context.ts";
import { ProcessLogs } from "./logs.ts";
import { observeProcesses, readProcessStats } from "./observe.ts";
import { ProcessStore } from "./store.ts";
import { ProcessWatch } from "./watch.ts";

export interface ProcessRuntimeOptions {
  instanceId: string;
  /** Whether `markInstance` was called on this database before: then `check` looks for the marker. */
  marked: boolean;
  /** Engines live in its folder `engines`. One orchestrator at a time: the caller holds a lock on it. */
  dataDir: string;
  /** What each engine's process is: a program, by path or found in `path`, and its arguments. */
  command: readonly string[];
  /** PATH and LANG of the engines. */
  path?: string;
  lang?: string;
  log: Pick<Log, "warn">;
}

const USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Engines as processes of this machine. They outlive whoever started them, and are found again. */
export async function openProcessRuntime(options: ProcessRuntimeOptions): Promise<EngineRuntime> {
  const { instanceId, log, command } = options;
  await mkdir(options.dataDir, { recursive: true });
  const dataDir = await realpath(options.dataDir);
  const store = new ProcessStore(join(dataDir, "engines"), instanceId);
  await store.open();
  const events = new EventHub();
  const logs = new ProcessLogs();
  const watch = new ProcessWatch({ store, events, logs, log });
  await watch.adoptAll();
  const path = options.path ?? `${dirname(process.execPath)}:${USUAL_PATH}`;
  const lang = options.lang ?? "C.UTF-8";
  const ctx = {
    store,
    events,
    logs,
    watch,
    command,
    path,
    lang,
    locks: new AsyncLock({ maxPending: Infinity }),
  };
  return toRuntime(ctx, { host: `process:${await readMachineId()}:${dataDir}`, marked: options.marked });
}

function toRuntime(ctx: ProcessContext, { host, marked }: { host: string; marked: boolean }): EngineRuntime {
  const { store, locks } = ctx;
  let isMarked = marked;
  const oneAtATime = (containerId: string, work: () => Promise<void>) =>
    attempt(() => locks.acquire(containerId, work));
  return {
    kind: "process",
    host,
    check: () =>
      attempt(async () => {
        if (isMarked && !(await store.hasMarker())) throw toChanged();
      }),
    markInstance: () =>
      attempt(async () => {
        await store.writeMarker();
        isMarked = true;
      }),
    findImage: async (image) => image,
    resolveImage: async (image) => image,
    ensure: (spec) =>
      attempt(() =>
        locks.acquire(toContainerName(spec), async () => {
          await store.ensureVolume(spec.volumeName, spec.engineId);
          return store.ensureContainer(spec);
        }),
      ),
    start: (containerId) => oneAtATime(containerId, () => startProcess(ctx, containerId)),
    pause: (containerId) => oneAtATime(containerId, () => pauseProcess(ctx, containerId)),
    unpause: (containerId) => oneAtATime(containerId, () => unpauseProcess(ctx, containerId)),
    stop: (containerId, graceSeconds) =>
      oneAtATime(containerId, () => stopProcess(ctx, containerId, graceSeconds)),
    remove: async (containerId) => {
      await attempt(() => killProcess(ctx, containerId));
      await oneAtATime(containerId, () => removeProcess(ctx, containerId));
    },
    removeData: (volumeName) => attempt(() => removeData(ctx, volumeName)),
    hasData: (volumeName) => attempt(() => store.hasVolume(volumeName)),
    observe: (engineId) => attempt(() => observeProcesses(ctx, engineId)),
    observeAll: () =>
      attempt(async () => ({
        containers: await observeProcesses(ctx),
        volumes: await store.listVolumes(),
      })),
    events: (signal) => ctx.events.read(signal),
    logs: (containerId, tail) =>
      attempt(async () => ctx.logs.tail(store.logFilesOf(await getContainer(ctx, containerId)), tail)),
    stats: (containerId) => attempt(() => readProcessStats(ctx, containerId)),
    async removeInstance() {
      const { containers, volumes } = await this.observeAll();
      for (const { containerId } of containers) await this.remove(containerId);
      for (const { volumeName } of volumes) await this.removeData(volumeName);
      await attempt(() => store.removeMarker());
    },
    [Symbol.asyncDispose]: () => ctx.watch.close(),
  };
}

/** As with a daemon, data that a container refers to stays. */
async function removeData(ctx: ProcessContext, volumeName: string): Promise<void> {
  const containers = await ctx.store.listContainers();
  const user = containers.find(({ spec }) => spec.volumeName === volumeName);
  if (user !== undefined) {
    throw new RuntimeFailure("refused", `the volume ${volumeName} is in use by ${user.containerId}`);
  }
  await ctx.store.removeVolume(volumeName);
}

async function attempt<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RuntimeFailure) throw error;
    throw new RuntimeFailure("refused", toErrorMessage(error), error);
  }
}

async function readMachineId(): Promise<string> {
  // Not every system has the file, and an image may have an empty one.
  const machineId = await readFile("/etc/machine-id", "utf8").catch(() => "");
  return machineId.trim() || hostname();
}

function toChanged(): RuntimeFailure {
  return new RuntimeFailure("changed", "the data directory is not the one that this database was used with");
}
