import type AsyncLock from "async-lock";
import type { EventHub } from "../event-hub.ts";
import type { ProcessLogs } from "./logs.ts";
import type { ProcessStore } from "./store.ts";
import type { ProcessWatch } from "./watch.ts";

/** What each function of the process runtime gets. */
export interface ProcessContext {
  store: ProcessStore;
  /** One change at a time for each container. Observing takes no lock. */
  locks: AsyncLock;
  events: EventHub;
  logs: ProcessLogs;
  watch: ProcessWatch;
  command: readonly string[];
  path: string;
  lang: string;
}
