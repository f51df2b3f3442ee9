import type AsyncLock from "async-lock";
import type { EventHub } from "../event-hub.ts";
import type { ContainerStore } from "./container-store.ts";
import type { ProcessLogs } from "./logs.ts";
import type { EngineRemains } from "./remains.ts";
import type { Spawner } from "./spawner.ts";
import type { VolumeStore } from "./volume-store.ts";
import type { ProcessWatch } from "./watch.ts";

export interface ProcessContext {
  store: ContainerStore;
  volumes: VolumeStore;
  /** One change at a time for each container. Observing takes no lock. */
  locks: AsyncLock;
  events: EventHub;
  logs: ProcessLogs;
  watch: ProcessWatch;
  remains: EngineRemains;
  spawner: Spawner;
  /** The cgroup in which each start gets a cgroup of its own. undefined: starts have none. */
  cgroupParent: string | undefined;
  /** The program of every engine, and its arguments. */
  command: readonly string[];
}
