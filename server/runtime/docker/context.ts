import type AsyncLock from "async-lock";
import type { Log } from "../../log.ts";
import type { DockerClient } from "./client.ts";

/** What each function of the docker runtime gets. */
export interface DockerContext {
  client: DockerClient;
  instanceId: string;
  log: Pick<Log, "info" | "warn">;
  /** Ids of containers that were seen to carry our label. Ids are never used again, labels never change. */
  owned: Set<string>;
  /** Ids of those that we created and have neither started nor stopped since, and when by `performance.now()`. */
  unstarted: Map<string, number>;
  /** Makes one network at a time, by its name. */
  networkLocks: AsyncLock;
  /** Pulls under way, by image. */
  pulls: Map<string, Promise<void>>;
}
