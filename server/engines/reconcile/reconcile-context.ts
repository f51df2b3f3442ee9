import type { BaseContext } from "../../context.ts";
import type { TamperReports } from "../../audit/tamper-reports.ts";
import type { EngineConnections } from "../../engine-contract/connections.ts";
import type { Keyring } from "../../keys/keyring.ts";
import type { Replica } from "../../replicas/replica.ts";
import type { KeptEngines } from "../access/kept-engines.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { MemoryKills } from "./memory-kills.ts";
import type { TakenPorts } from "./taken-ports.ts";

/** The objects that a reconcile uses. */
export interface ReconcileContext extends Pick<BaseContext, "db" | "config" | "log" | "clock" | "metrics"> {
  runtime: EngineRuntime;
  keyring: Keyring;
  tamperReports: TamperReports;
  replica: Pick<Replica, "id" | "holdsLease">;
  connections: EngineConnections;
  takenPorts: TakenPorts;
  memoryKills: MemoryKills;
  keptEngines: Pick<KeptEngines, "changing">;
}
