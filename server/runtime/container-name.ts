import type { ContainerSpec } from "./engine-runtime.ts";

/** A runtime gives a name to one container at a time, so the name is the mutex of `ensure`. */
export function toContainerName(spec: Pick<ContainerSpec, "engineId" | "incarnation">): string {
  return `engine-${spec.engineId}-${spec.incarnation}`;
}
