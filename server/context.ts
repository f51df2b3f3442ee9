import type { Database } from "../db/client.ts";
import type { Actor } from "./audit/audit-entry.ts";
import type { Clock } from "./time/clock.ts";
import type { DrainState } from "./replicas/drain-state.ts";
import type { Config } from "./config/config.ts";
import type { Reconciler } from "./engines/reconcile/reconciler.ts";
import type { EngineHolds } from "./engines/access/engine-holds.ts";
import type { TakenPorts } from "./engines/reconcile/taken-ports.ts";
import type { LeaseGuard } from "./replicas/lease-guard.ts";
import type { Keyring } from "./keys/keyring.ts";
import type { Log } from "./log.ts";
import type { EngineRuntime } from "./runtime/engine-runtime.ts";
import type { Replica } from "./replicas/replica.ts";
import type { TurnRegistry } from "./turns/turn-registry.ts";

/** Everything that lives as long as the process. Functions ask for the part they use with `Pick`. */
export interface AppContext extends Pick<Database, "db" | "raw"> {
  config: Config;
  log: Log;
  clock: Clock;
  instanceId: string;
  replica: Replica;
  lease: LeaseGuard;
  runtime: EngineRuntime;
  keyring: Keyring;
  holds: EngineHolds;
  takenPorts: TakenPorts;
  reconciler: Reconciler;
  turns: TurnRegistry;
  drain: DrainState;
}

/** Who asks, for the audit trail. */
export interface CallContext {
  actor: Actor;
  requestId: string | null;
}
