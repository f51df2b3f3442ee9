import type { BaseContext } from "../../context.ts";
import type { EngineConnections } from "../../engine-contract/connections.ts";
import type { Replica } from "../../replicas/replica.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { TakenPorts } from "./taken-ports.ts";

/** What reconciling an engine uses. */
export interface ReconcileContext extends Pick<BaseContext, "db" | "config" | "log" | "clock"> {
  runtime: EngineRuntime;
  replica: Pick<Replica, "id" | "holdsLease">;
  connections: EngineConnections;
  takenPorts: TakenPorts;
}
