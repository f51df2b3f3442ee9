export { createClient, type Client, type ClientOptions } from "./create-client.ts";
export {
  EnginehouseError,
  findReason,
  type ClientReason,
  type FailureReason,
  type Reason,
} from "./enginehouse-error.ts";
export type { RetryOptions } from "./retry-options.ts";
export type { ExecuteInput, Turn } from "./turn.ts";
export type { EventData, KnownTurnEvent, OtherTurnEvent, TurnEnd, TurnEvent, TurnGap } from "./turn-event.ts";
