import type { BaseContext, CallContext } from "../../context.ts";
import type { Keyring } from "../../keys/keyring.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { EngineHolds } from "../access/engine-holds.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import type { TakenPorts } from "../reconcile/taken-ports.ts";

/** The objects that operations on engines use, and the call's actor and request id. */
export interface OperationContext extends BaseContext, CallContext {
  runtime: EngineRuntime;
  keyring: Keyring;
  holds: EngineHolds;
  reconciler: Reconciler;
  takenPorts: TakenPorts;
}
