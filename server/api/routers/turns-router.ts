import { z } from "zod";
import { cancelTurn } from "../../turns/cancel-turn.ts";
import { respondToTurn } from "../../turns/respond-to-turn.ts";
import { getTurn } from "../../turns/read/get-turn.ts";
import { listTurns } from "../../turns/read/list-turns.ts";
import { requireTurnOfUser } from "../../turns/read/require-turn-of-user.ts";
import { startTurn, type StartTurnInput } from "../../turns/start/start-turn.ts";
import { Cursor, ExpectGeneration, Limit, UserId, Uuid } from "./field-schemas.ts";
import { CALLING, HOLDING } from "./reason-groups.ts";
import { platformProcedure } from "../trpc/procedures.ts";
import { sendOnce } from "../trpc/send-once.ts";
import { streamTurn } from "../turn-stream/stream-turn.ts";
import { toTrpcItems } from "../turn-stream/encode-for-trpc.ts";
import { t } from "../trpc/trpc.ts";
import {
  AcceptedAnswer,
  ExecuteRequestSchema,
  PersonAnswer,
  StartedTurn,
  toAddress,
  TurnPage,
  TurnSchema,
} from "./turn-schemas.ts";

const Start = z.strictObject({
  turnId: Uuid.describe(
    "The id of the turn. You make it, for instance as a UUID v4, and it is the idempotency key of the start: the same id with the same input joins the turn and starts nothing.",
  ),
  userId: UserId,
  request: ExecuteRequestSchema,
  autoWake: z.boolean().default(true).describe("Has no effect until engines can sleep."),
  autoProvision: z
    .literal(false)
    .default(false)
    .describe("Not built yet, so only false is allowed: provision the engine first."),
  expectGeneration: ExpectGeneration,
});
/** tRPC adds it when a reader comes back. */
const LastEventId = z
  .string()
  .regex(/^[0-9]{1,15}$/, { error: "must be the id of an item of this stream" })
  .optional()
  .describe(
    "The `id` of the last message that you have: the stream continues after it. The header `Last-Event-ID` does the same. Without it, the stream begins with the first event.",
  );
const Execute = Start.extend({ lastEventId: LastEventId });
const OfTurn = z.strictObject({ turnId: Uuid.describe("The id of the turn.") });
const Events = OfTurn.extend({ lastEventId: LastEventId });
const List = z.strictObject({ userId: UserId, cursor: Cursor, limit: Limit });

/** TURN_NOT_FOUND: the turn was cancelled before the engine had it. */
const STARTING = [
  ...HOLDING,
  "ENGINE_ERROR",
  "IDEMPOTENCY_MISMATCH",
  "NOT_SUPPORTED_BY_ENGINE",
  "QUOTA_EXCEEDED",
  "STREAM_LIMIT",
  "TURN_IN_PROGRESS",
  "TURN_NOT_FOUND",
] as const;

export const turnsRouter = t.router({
  // Has no idempotency key, because the turnId is one.
  start: platformProcedure("turns")
    .meta({
      startsTurn: true,
      summary: "Starts a turn, and answers once the engine has accepted it.",
      description:
        "After 10 s without the engine's answer, the reply is a turn in `starting`. The request is sent to the engine once, whatever happens. Read the events with `turns.events`.",
      reasons: STARTING,
    })
    .input(Start)
    .output(StartedTurn)
    .mutation(async ({ ctx, input }) => startTurn(ctx.call, toStartInput(ctx, input))),
  /** `start` and `events` in one call. A refused start is the stream's error. */
  execute: platformProcedure("turns", "read")
    .meta({
      beginsWork: true,
      startsTurn: true,
      summary: "Starts a turn and streams its events: `turns.start` and `turns.events` in one call.",
      description:
        "The first item without events says that the turn has begun, if no event comes within 50 ms. With `lastEventId` nothing is started. Leaving the stream does not end the turn.",
      reasons: STARTING,
    })
    .input(Execute)
    .subscription(({ ctx, input: { lastEventId, ...input }, signal }) => {
      const begin = async () => ctx.app.lease.run(async () => startTurn(ctx.call, toStartInput(ctx, input)));
      // A reader with a cursor has seen the turn begin. Never start it again: its row may be deleted by now.
      const start = lastEventId === undefined ? begin : undefined;
      const { turnId, userId } = input;
      const key = { turnId, userId, productId: ctx.productId };
      const check = start ? undefined : async () => requireTurnOfUser(ctx.call, key);
      return toTrpcItems(streamTurn(ctx, { turnId, afterSeq: toCursor(lastEventId), start, check, signal }));
    }),
  events: platformProcedure("read")
    .meta({
      summary: "Streams the events of a turn, from the beginning or after a cursor, to its end.",
      description:
        "Works while the turn is live and until its events are removed (ORCH_TURN_RETENTION_S after its end).",
      reasons: ["STREAM_LIMIT", "TURN_NOT_FOUND"],
    })
    .input(Events)
    .subscription(({ ctx, input: { turnId, lastEventId }, signal }) =>
      toTrpcItems(streamTurn(ctx, { turnId, afterSeq: toCursor(lastEventId), signal })),
    ),
  get: platformProcedure("read")
    .meta({ summary: "Returns a turn without its events.", reasons: ["TURN_NOT_FOUND"] })
    .input(OfTurn)
    .output(TurnSchema)
    .query(async ({ ctx, input }) => getTurn(ctx.call, { ...input, productId: ctx.productId })),
  list: platformProcedure("read")
    .meta({ summary: "Lists the turns of a user, newest first, without their events." })
    .input(List)
    .output(TurnPage)
    .query(async ({ ctx, input }) => listTurns(ctx.call, { ...input, productId: ctx.productId })),
  cancel: platformProcedure("turns")
    .meta({
      whileDraining: true,
      summary: "Cancels a turn, and returns it.",
      description:
        "The engine is told to end the turn, if it has a call for that; see `engineMayContinue` in the end. A turn that has ended stays as it is; if its engine may continue, the engine is told again.",
      reasons: ["TURN_NOT_FOUND"],
    })
    .input(OfTurn)
    .output(TurnSchema)
    .mutation(async ({ ctx, input }) => cancelTurn(ctx.call, { ...input, productId: ctx.productId })),
  respond: platformProcedure("turns")
    .meta({
      whileDraining: true,
      reachesEngine: true,
      summary: "Gives a person's answer to a turn that waits for it.",
      description:
        "The answer is sent to the engine once. The turn goes on, and its stream shows it. If the engine's reply is lost, the reason is OUTCOME_UNKNOWN.",
      reasons: [...CALLING, "OUTCOME_UNKNOWN", "TURN_NOT_FOUND"],
    })
    .input(PersonAnswer)
    .output(AcceptedAnswer)
    .mutation(async (opts) =>
      sendOnce(opts, async (ctx, { turnId, userId, taskId, ...input }) =>
        respondToTurn(ctx, { ...input, address: toAddress({ turnId, userId, taskId }) }),
      ),
    ),
});

function toCursor(lastEventId: string | undefined): number {
  return Number(lastEventId ?? 0);
}

function toStartInput(ctx: { productId: string }, input: z.infer<typeof Start>): StartTurnInput {
  const { autoWake: _autoWake, autoProvision: _autoProvision, ...rest } = input;
  return { ...rest, productId: ctx.productId };
}
