import type { ContainerSpec } from "../engine-runtime.ts";

/** What tells our containers, volumes and networks from everybody else's. */
export const DOCKER_LABEL = {
  instance: "enginehouse.instance",
  engine: "enginehouse.engine",
  incarnation: "enginehouse.incarnation",
  fencingToken: "enginehouse.fencing-token",
  spec: "enginehouse.spec",
} as const;

/** The volume that only the daemon which `markInstance` met can have. */
export function toMarkerName(instanceId: string): string {
  return `enginehouse-instance-${instanceId}`;
}

export function toContainerLabels(instanceId: string, spec: ContainerSpec): Record<string, string> {
  return {
    [DOCKER_LABEL.instance]: instanceId,
    [DOCKER_LABEL.engine]: spec.engineId,
    [DOCKER_LABEL.incarnation]: String(spec.incarnation),
    [DOCKER_LABEL.fencingToken]: String(spec.fencingToken),
    [DOCKER_LABEL.spec]: spec.specHash,
  };
}

export function toVolumeLabels(instanceId: string, engineId: string): Record<string, string> {
  return { [DOCKER_LABEL.instance]: instanceId, [DOCKER_LABEL.engine]: engineId };
}

/** The daemon's filter for what is this instance's, and with `engineId` what is that engine's. */
export function toOwnFilter(instanceId: string, engineId?: string): { label: string[] } {
  const label = [`${DOCKER_LABEL.instance}=${instanceId}`];
  label.push(engineId === undefined ? DOCKER_LABEL.engine : `${DOCKER_LABEL.engine}=${engineId}`);
  return { label };
}
