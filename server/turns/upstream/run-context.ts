import type { Config } from "../../config/config.ts";
import type { EngineConnections } from "../../engine-contract/connections.ts";
import type { Reconciler } from "../../engines/reconcile/reconciler.ts";
import type { Replica } from "../../replicas/replica.ts";
import type { TurnLog } from "../log/turn-log.ts";
import type { TurnTiming } from "../model/turn-timing.ts";
import type { TurnContext } from "../turn-context.ts";
import type { IsoTime } from "./iso-time.ts";
import type { LingeringHolds } from "./lingering-holds.ts";

/** What it takes to run a turn: its engine, its log and its limits. */
export interface RunContext extends TurnContext {
  config: Pick<
    Config,
    | "eventMaxBytes"
    | "turnMaxBytes"
    | "turnLogBytesPerHour"
    | "maxLiveTurns"
    | "turnIdleTimeoutMs"
    | "hitlTimeoutMs"
  >;
  replica: Pick<Replica, "id" | "holdsLease">;
  reconciler: Pick<Reconciler, "observeNow">;
  connections: EngineConnections;
  turnLog: TurnLog;
  turnTiming: TurnTiming;
  lingeringHolds: LingeringHolds;
  isoTime: IsoTime;
}
