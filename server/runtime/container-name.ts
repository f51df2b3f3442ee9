import type { ContainerSpec } from "./engine-runtime.ts";

/** Taken by one container at a time, which makes it the mutex of `ensure`. */
export function toContainerName(spec: Pick<ContainerSpec, "engineId" | "incarnation">): string {
  return `engine-${spec.engineId}-${spec.incarnation}`;
}
