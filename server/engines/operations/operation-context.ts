import type { BaseContext, CallContext } from "../../context.ts";
import type { Keyring } from "../../keys/keyring.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { EngineHolds } from "../access/engine-holds.ts";
import type { FairSlots } from "../../time/fair-slots.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import type { TakenPorts } from "../reconcile/taken-ports.ts";

/** The objects that operations on engines use, and the call's actor and request id. */
export interface OperationContext extends BaseContext, CallContext {
  runtime: EngineRuntime;
  keyring: Keyring;
  holds: EngineHolds;
  reconciler: Reconciler;
  takenPorts: TakenPorts;
  /**
   * For transactions that record an operation. Those of one product wait for each other's locks while they keep a
   * database connection, so a thousand of them would take every connection from other products.
   */
  recordSlots: FairSlots;
}
