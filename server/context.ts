import type { Database } from "../db/client.ts";
import type { Actor } from "./audit/audit-entry.ts";
import type { Config } from "./config/config.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import type { Clock } from "./time/clock.ts";

/**
 * What nearly everything needs. A function asks for its part with `Pick`, and names the other objects that it uses
 * (a runtime, a keyring, the holds) next to it. `compose.ts` makes them all.
 */
export interface BaseContext extends Pick<Database, "db" | "raw"> {
  config: Config;
  log: Log;
  clock: Clock;
  metrics: Metrics;
}

/** Who calls, for the audit log. */
export interface CallContext {
  actor: Actor;
  /** null when no request caused the call. */
  requestId: string | null;
}
