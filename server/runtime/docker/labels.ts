import type { ContainerSpec } from "../engine-runtime.ts";

/** Labels of our containers, volumes and networks. `instance` is the installation that they belong to. */
export const DOCKER_LABEL = {
  instance: "enginehouse.instance",
  engine: "enginehouse.engine",
  incarnation: "enginehouse.incarnation",
  fencingToken: "enginehouse.fencing-token",
  spec: "enginehouse.spec",
  /** Only on containers of a network without a way out. */
  internal: "enginehouse.internal",
  /** Only on the container that probes the engines' network. */
  probe: "enginehouse.probe",
} as const;

/** The name of the marker: a volume that exists only on the daemon on which `markInstance` was called. */
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
    ...(spec.internalSubnet !== null && { [DOCKER_LABEL.internal]: "true" }),
  };
}

export function toVolumeLabels(instanceId: string, engineId: string): Record<string, string> {
  return { [DOCKER_LABEL.instance]: instanceId, [DOCKER_LABEL.engine]: engineId };
}

/** A filter for the objects of all engines of this installation, or of one engine. */
export function toOwnFilter(instanceId: string, engineId?: string): { label: string[] } {
  const label = [`${DOCKER_LABEL.instance}=${instanceId}`];
  label.push(engineId === undefined ? DOCKER_LABEL.engine : `${DOCKER_LABEL.engine}=${engineId}`);
  return { label };
}
