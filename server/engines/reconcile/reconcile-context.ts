import type { BaseContext } from "../../context.ts";
import type { EngineConnections } from "../../engine-contract/connections.ts";
import type { Replica } from "../../replicas/replica.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { MemoryKills } from "./memory-kills.ts";
import type { TakenPorts } from "./taken-ports.ts";

/** The objects that a reconcile uses. */
export interface ReconcileContext extends Pick<BaseContext, "db" | "config" | "log" | "clock" | "metrics"> {
  runtime: EngineRuntime;
  replica: Pick<Replica, "id" | "holdsLease">;
  connections: EngineConnections;
  takenPorts: TakenPorts;
  memoryKills: MemoryKills;
}
