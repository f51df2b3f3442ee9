import type { ContainerInspectInfo } from "dockerode";
import { DOCKER_LABEL } from "./labels.ts";
import type { ContainerObservation, ContainerState } from "../engine-runtime.ts";

const KEY_HASH = "ENGINE_KEY_HASH=";

export function toObservation(inspected: ContainerInspectInfo): ContainerObservation {
  const { Config: config, State: state } = inspected;
  const containerState = toContainerState(state);
  const startedAt = toInstant(state.StartedAt);
  const hasExited = (containerState === "exited" || containerState === "restarting") && startedAt !== null;
  return {
    containerId: inspected.Id,
    engineId: config.Labels[DOCKER_LABEL.engine] ?? "",
    incarnation: Number(config.Labels[DOCKER_LABEL.incarnation] ?? 0),
    specHash: config.Labels[DOCKER_LABEL.spec] ?? "",
    state: containerState,
    startedAt,
    exitCode: hasExited ? state.ExitCode : null,
    oomKilled: state.OOMKilled,
    restartCount: inspected.RestartCount,
    hostPort: toHostPort(inspected.HostConfig.PortBindings),
    keyHash: config.Env.find((entry) => entry.startsWith(KEY_HASH))?.slice(KEY_HASH.length) ?? "",
  };
}

function toContainerState(state: ContainerInspectInfo["State"]): ContainerState {
  // Paused and restarting containers count as running too, so these come first.
  if (state.Paused) return "paused";
  if (state.Restarting) return "restarting";
  if (state.Running) return "running";
  return state.Status === "created" ? "created" : "exited";
}

/** Go's zero time stands for "never". Milliseconds are kept: enough to tell two starts of one container apart. */
function toInstant(time: string): string | null {
  return time.startsWith("0001-") ? null : new Date(time).toISOString();
}

/** The one binding there is, from the configuration: a stopped container has no other. */
function toHostPort(bindings: unknown): number {
  if (typeof bindings !== "object" || bindings === null) return 0;
  for (const list of Object.values(bindings)) {
    const binding: unknown = Array.isArray(list) ? list[0] : undefined;
    if (typeof binding === "object" && binding !== null && "HostPort" in binding)
      return Number(binding.HostPort);
  }
  return 0;
}
