import type { BaseContext, CallContext } from "../../context.ts";
import type { Keyring } from "../../keys/keyring.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { EngineHolds } from "../access/engine-holds.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import type { TakenPorts } from "../reconcile/taken-ports.ts";

/** What an operation on an engine uses, and who called it. */
export interface OperationContext extends BaseContext, CallContext {
  runtime: EngineRuntime;
  keyring: Keyring;
  holds: EngineHolds;
  reconciler: Reconciler;
  takenPorts: TakenPorts;
}
