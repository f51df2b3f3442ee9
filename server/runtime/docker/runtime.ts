import AsyncLock from "async-lock";
import type { Log } from "../../log.ts";
import { openDockerClient, type DockerClient } from "./client.ts";
import {
  pauseContainer,
  removeContainer,
  startContainer,
  stopContainer,
  unpauseContainer,
} from "./containers.ts";
import type { DockerContext } from "./context.ts";
import { ensureContainer } from "./ensure-container.ts";
import { readDockerEvents } from "./events.ts";
import { toMarkerName } from "./labels.ts";
import { readDockerLogs } from "./logs.ts";
import { removeOwnNetworks } from "./network.ts";
import { observeContainers } from "./observe.ts";
import { findDockerImage, resolveDockerImage } from "./images.ts";
import { probeNetwork } from "./probe-network.ts";
import { readStats } from "./stats.ts";
import { createMarker, hasMarker, hasVolume, listVolumes, measureVolumes, removeVolume } from "./volumes.ts";
import { RuntimeFailure, type EngineRuntime } from "../engine-runtime.ts";

export interface DockerRuntimeOptions {
  instanceId: string;
  /** Whether the database records a marked runtime. If so, `check` requires the marker. */
  marked: boolean;
  /** `unix:///path` or `tcp://host:port`. undefined: the default socket. */
  dockerHost?: string | undefined;
  /** The runtime host that an earlier start recorded. With it, the runtime opens even if the daemon is down. */
  host?: string | undefined;
  log: Pick<Log, "info" | "warn">;
  callTimeoutMs?: number;
}

const CALL_TIMEOUT_MS = 10_000;

/** Throws `unreachable` if no daemon answers and `host` is not given. */
export async function openDockerRuntime(options: DockerRuntimeOptions): Promise<EngineRuntime> {
  const client = await openDockerClient({
    dockerHost: options.dockerHost,
    callTimeoutMs: options.callTimeoutMs ?? CALL_TIMEOUT_MS,
  });
  try {
    const host = options.host ?? (await readHost(client));
    const { instanceId, log, marked } = options;
    const state = {
      owned: new Set<string>(),
      unstarted: new Map<string, number>(),
      networkLocks: new AsyncLock({ maxPending: Infinity }),
      pulls: new Map(),
    };
    const isRecorded = options.host !== undefined;
    return toRuntime({ client, instanceId, log, ...state }, { host, isRecorded, marked });
  } catch (error) {
    client[Symbol.dispose]();
    throw error;
  }
}

function toRuntime(
  ctx: DockerContext,
  { host, isRecorded, marked }: { host: string; isRecorded: boolean; marked: boolean },
): EngineRuntime {
  let isMarked = marked;
  return {
    kind: "docker",
    publishesHostPorts: true,
    startsOnEnsure: false,
    host,
    check: async () => {
      if (!isMarked) await ctx.client.call((docker) => docker.ping());
      else if (!(await hasMarker(ctx))) throw toChanged(ctx.instanceId);
    },
    markInstance: async ({ acceptsAnyHost = false } = {}) => {
      // If the runtime was opened from a recorded host, the daemon that answers now may be another one.
      if (!acceptsAnyHost && isRecorded && (await readHost(ctx.client)) !== host)
        throw toChanged(ctx.instanceId);
      await createMarker(ctx);
      isMarked = true;
    },
    findImage: (image) => findDockerImage(ctx, image),
    resolveImage: (image, signal) => resolveDockerImage(ctx, image, signal),
    ensure: (spec) => ensureContainer(ctx, spec),
    start: (containerId) => startContainer(ctx, containerId),
    pause: (containerId) => pauseContainer(ctx, containerId),
    unpause: (containerId) => unpauseContainer(ctx, containerId),
    stop: (containerId, graceSeconds) => stopContainer(ctx, containerId, graceSeconds),
    remove: (containerId) => removeContainer(ctx, containerId),
    removeData: (volumeName) => removeVolume(ctx, volumeName),
    hasData: (volumeName) => hasVolume(ctx, volumeName),
    observe: (engineId) => observeContainers(ctx, engineId),
    observeAll: async () => {
      const [containers, volumes] = await Promise.all([observeContainers(ctx), listVolumes(ctx)]);
      return { containers, volumes };
    },
    events: (signal) => readDockerEvents(ctx, signal),
    logs: (containerId, tail) => readDockerLogs(ctx, containerId, tail),
    stats: (containerId) => readStats(ctx, containerId),
    measureVolumes: () => measureVolumes(ctx),
    findOpenTargets: (network) => probeNetwork(ctx, network),
    removeInstance: () => removeInstance(ctx),
    [Symbol.asyncDispose]: async () => ctx.client[Symbol.dispose](),
  };
}

/** Two daemons on one machine may have the same id. The marker tells them apart. */
async function readHost(client: DockerClient): Promise<string> {
  const info: unknown = await client.call((docker) => docker.info());
  if (typeof info === "object" && info !== null && "ID" in info && typeof info.ID === "string") {
    return `docker:${info.ID}`;
  }
  throw new RuntimeFailure("unreachable", "the answer to `info` has no id: no Docker daemon answers");
}

async function removeInstance(ctx: DockerContext): Promise<void> {
  for (const { containerId } of await observeContainers(ctx)) await removeContainer(ctx, containerId);
  for (const { volumeName } of await listVolumes(ctx)) await removeVolume(ctx, volumeName);
  await removeVolume(ctx, toMarkerName(ctx.instanceId));
  await removeOwnNetworks(ctx);
}

function toChanged(instanceId: string): RuntimeFailure {
  const problem = `the Docker daemon lacks the volume ${toMarkerName(instanceId)}`;
  return new RuntimeFailure(
    "changed",
    `${problem}: another daemon answers, or an operator calls fleet.acceptRuntime`,
  );
}
