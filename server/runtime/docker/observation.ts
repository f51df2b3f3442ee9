import type { ContainerInspectInfo } from "dockerode";
import { DOCKER_LABEL } from "./labels.ts";
import type { ContainerObservation, ContainerState } from "../engine-runtime.ts";
import { toLoopbackEndpoint, toProcessIdentity } from "../local-process.ts";

const KEY_HASH = "ENGINE_KEY_HASH=";

export function toObservation(inspected: ContainerInspectInfo): ContainerObservation {
  const { Config: config, State: state } = inspected;
  const containerState = toContainerState(state);
  const startedAt = toInstant(state.StartedAt);
  const hostPort = toHostPort(inspected.HostConfig.PortBindings as PortBindings);
  const hasExited = (containerState === "exited" || containerState === "restarting") && startedAt !== null;
  return {
    containerId: inspected.Id,
    engineId: config.Labels[DOCKER_LABEL.engine] ?? "",
    incarnation: Number(config.Labels[DOCKER_LABEL.incarnation] ?? 0),
    specHash: config.Labels[DOCKER_LABEL.spec] ?? "",
    state: containerState,
    processIdentity: toProcessIdentity(inspected.Id, startedAt),
    startedAt,
    exitCode: hasExited ? state.ExitCode : null,
    oomKilled: state.OOMKilled,
    restartCount: inspected.RestartCount,
    endpoint: isInternal(config) ? findInternalEndpoint(inspected) : toLoopbackEndpoint(hostPort),
    hostPort,
    defect: findDefect(inspected, containerState),
    keyHash: config.Env.find((entry) => entry.startsWith(KEY_HASH))?.slice(KEY_HASH.length) ?? "",
  };
}

function toContainerState(state: ContainerInspectInfo["State"]): ContainerState {
  // Docker reports paused and restarting containers as running too, so these come first.
  if (state.Paused) return "paused";
  if (state.Restarting) return "restarting";
  if (state.Running) return "running";
  return state.Status === "created" ? "created" : "exited";
}

/** null for Go's zero time. Milliseconds are enough to tell two starts of one container apart. */
function toInstant(time: string): string | null {
  return time.startsWith("0001-") ? null : new Date(time).toISOString();
}

/** A person can detach a container from its network, and the daemon then starts it without one. */
function findDefect(inspected: ContainerInspectInfo, state: ContainerState): string | null {
  const { NetworkMode: network = "" } = inspected.HostConfig;
  const { Networks: networks, Ports: published } = inspected.NetworkSettings;
  // The mode is the network's id if several networks had its name.
  const isAttached = Object.entries(networks).some(
    ([name, { NetworkID: id }]) => name === network || id === network,
  );
  if (!isAttached) return `the container is not attached to its network ${network}`;
  if ((state !== "running" && state !== "paused") || isInternal(inspected.Config)) return null;
  for (const [port, bindings] of Object.entries((inspected.HostConfig.PortBindings ?? {}) as object)) {
    if (!hasEntry(bindings) || hasEntry((published as Partial<typeof published>)[port])) continue;
    return `the daemon does not publish the container's port ${port}`;
  }
  return null;
}

function hasEntry(bindings: unknown): boolean {
  return Array.isArray(bindings) && bindings.length > 0;
}

type PortBindings = Record<string, { HostPort?: string }[] | null> | null | undefined;

function isInternal({ Labels: labels }: ContainerInspectInfo["Config"]): boolean {
  return labels[DOCKER_LABEL.internal] !== undefined;
}

/** The address is part of the container, so it stays over restarts. null: the container was detached. */
function findInternalEndpoint({ HostConfig: config, NetworkSettings: settings }: ContainerInspectInfo) {
  const [port] = Object.keys((config.PortBindings ?? {}) as object);
  const address = Object.values(settings.Networks)[0]?.IPAMConfig?.IPv4Address;
  if (port === undefined || address === undefined) return null;
  return `http://${address}:${port.replace("/tcp", "")}`;
}

/** Read from the configuration, because a stopped container has no other binding. null: no port is published. */
function toHostPort(bindings: PortBindings): number | null {
  for (const list of Object.values(bindings ?? {})) {
    const hostPort = list?.[0]?.HostPort;
    if (hostPort !== undefined) return Number(hostPort);
  }
  return null;
}
