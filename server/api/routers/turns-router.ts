import { z } from "zod";
import { cancelTurn } from "../../turns/cancel-turn.ts";
import { respondToTurn } from "../../turns/respond-to-turn.ts";
import { getTurn } from "../../turns/read/get-turn.ts";
import { listTurns } from "../../turns/read/list-turns.ts";
import { startTurn, type StartTurnInput } from "../../turns/start/start-turn.ts";
import { Cursor, Generation, Limit, UserId, Uuid } from "./field-schemas.ts";
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
  turnId: Uuid,
  userId: UserId,
  request: ExecuteRequestSchema,
  /** Has no effect until engines can sleep. */
  autoWake: z.boolean().default(true),
  /** true is not built yet. */
  autoProvision: z.literal(false).default(false),
  expectGeneration: Generation.optional(),
});
/** The id of the last item that the reader has. tRPC adds it when a reader comes back. */
const LastEventId = z
  .string()
  .regex(/^[0-9]{1,15}$/, { error: "must be the id of an item of this stream" })
  .optional();
const Execute = Start.extend({ lastEventId: LastEventId });
const Events = z.strictObject({ turnId: Uuid, lastEventId: LastEventId });
const OfTurn = z.strictObject({ turnId: Uuid });
const List = z.strictObject({ userId: UserId, cursor: Cursor, limit: Limit });

export const turnsRouter = t.router({
  // Has no idempotency key, because the turnId is one.
  start: platformProcedure("turns")
    .input(Start)
    .output(StartedTurn)
    .mutation(async ({ ctx, input }) => startTurn(ctx.call, toStartInput(ctx, input))),
  /** `start` and `events` in one call. A refused start is the stream's error. */
  execute: platformProcedure("turns", "read")
    .meta({ beginsWork: true })
    .input(Execute)
    .subscription(({ ctx, input: { lastEventId, ...input }, signal }) => {
      const begin = async () => ctx.app.lease.run(async () => startTurn(ctx.call, toStartInput(ctx, input)));
      // A reader with a cursor has seen the turn begin. Never start it again: its row may be deleted by now.
      const start = lastEventId === undefined ? begin : undefined;
      const { turnId } = input;
      return toTrpcItems(streamTurn(ctx, { turnId, afterSeq: toCursor(lastEventId), start, signal }));
    }),
  events: platformProcedure("read")
    .input(Events)
    .subscription(({ ctx, input: { turnId, lastEventId }, signal }) =>
      toTrpcItems(streamTurn(ctx, { turnId, afterSeq: toCursor(lastEventId), signal })),
    ),
  get: platformProcedure("read")
    .input(OfTurn)
    .output(TurnSchema)
    .query(async ({ ctx, input }) => getTurn(ctx.call, { ...input, productId: ctx.productId })),
  list: platformProcedure("read")
    .input(List)
    .output(TurnPage)
    .query(async ({ ctx, input }) => listTurns(ctx.call, { ...input, productId: ctx.productId })),
  cancel: platformProcedure("turns")
    .meta({ whileDraining: true })
    .input(OfTurn)
    .output(TurnSchema)
    .mutation(async ({ ctx, input }) => cancelTurn(ctx.call, { ...input, productId: ctx.productId })),
  respond: platformProcedure("turns")
    .meta({ whileDraining: true, reachesEngine: true })
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
