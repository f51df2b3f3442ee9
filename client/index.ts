export { createClient, type Client, type ClientOptions } from "./create-client.ts";
export { EnginehouseError, findReason } from "./enginehouse-error.ts";
export { toEventStream, type EventStreamOptions } from "./event-stream.ts";
export {
  pipeEventStream,
  type NodeRequest,
  type NodeResponse,
  type PipeEventStreamOptions,
} from "./pipe-event-stream.ts";
export { toErrorResponse, toPublicError, type PublicError } from "./public-error.ts";
export type { Engine, EnsureInput } from "./ensure-engine.ts";
export type { ClientReason, FailureReason, Reason } from "./reason.ts";
export type { RetryOptions } from "./retry-options.ts";
export type { ExecuteInput, FollowInput, PersonAnswer, Turn } from "./turn.ts";
export type { EventData, KnownTurnEvent, OtherTurnEvent, TurnEnd, TurnEvent, TurnGap } from "./turn-event.ts";
