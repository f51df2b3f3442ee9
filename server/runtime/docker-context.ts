import type { Log } from "../log.ts";
import type { DockerClient } from "./docker-client.ts";
import type { KeyedMutex } from "./keyed-mutex.ts";

/** What each function of the docker runtime gets. */
export interface DockerContext {
  client: DockerClient;
  instanceId: string;
  log: Pick<Log, "info" | "warn">;
  /** Ids of containers that were seen to carry our label. Ids are never used again, labels never change. */
  owned: Set<string>;
  /** Networks being made, by name. */
  networkMutex: KeyedMutex;
  /** Pulls under way, by image. */
  pulls: Map<string, Promise<void>>;
}
