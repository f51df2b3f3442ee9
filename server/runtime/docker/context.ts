import type AsyncLock from "async-lock";
import type { Log } from "../../log.ts";
import type { DockerClient } from "./client.ts";

export interface DockerContext {
  client: DockerClient;
  instanceId: string;
  log: Pick<Log, "info" | "warn">;
  /** Ids of containers that are known to carry our label. The daemon never reuses an id or changes a label. */
  owned: Set<string>;
  /** Containers that we created and have neither started nor stopped: id → `performance.now()` of the creation. */
  unstarted: Map<string, number>;
  /** Makes one network at a time, by its name. */
  networkLocks: AsyncLock;
  /** Running pulls, by image. */
  pulls: Map<string, Promise<void>>;
}
