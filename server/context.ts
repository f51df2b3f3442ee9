import type { Database } from "../db/client.ts";
import type { Actor } from "./actor.ts";
import type { Config } from "./config/config.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import type { Clock } from "./time/clock.ts";

/**
 * The objects that nearly every function uses. A function takes only the fields that it uses, through `Pick`. Its
 * context type adds other objects, such as a runtime or a keyring. `compose.ts` creates all of them.
 */
export interface BaseContext extends Pick<Database, "db" | "raw"> {
  config: Config;
  log: Log;
  clock: Clock;
  metrics: Metrics;
}

/** The caller and the request, as the audit log records them. */
export interface CallContext {
  actor: Actor;
  /** null when no request caused the call. */
  requestId: string | null;
}
