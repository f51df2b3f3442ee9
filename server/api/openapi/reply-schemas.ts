import { z } from "zod";
import { type EngineErrorDetail, type InputIssue, REASONS } from "../../errors.ts";
import type { TurnEvent, TurnGap } from "../../turns/read/turn-batch.ts";
import { GAP_REASONS } from "../../turns/read/turn-batch.ts";
import { instantText } from "../../time/instant-text.ts";
import { toMeaningText } from "../routers/end-reason-meanings.ts";
import { EndSchema } from "../routers/turn-schemas.ts";
import type { TrpcErrorShape } from "../trpc/api-error.ts";
import type { TurnItem } from "../turn-stream/encode-for-trpc.ts";
import { REASON_MEANINGS } from "./reason-meanings.ts";

/** Schemas of replies that the service writes without a schema: refusals, and the messages of streams. */

const ReasonSchema = z.enum(REASONS).meta({
  id: "Reason",
  description: `Why the call failed. Branch on it: the list is closed, and no reason changes its meaning. ${toMeaningText(REASON_MEANINGS)}`,
});

const Issue = z
  .object({
    path: z.string().describe("The field of the input, as a dotted path. Empty: the input as a whole."),
    message: z.string().describe("What is wrong with it."),
  })
  .meta({
    id: "InputIssue",
    description: "What is wrong with one field of the input.",
  }) satisfies z.ZodType<InputIssue>;

const EngineAnswer = z
  .object({
    status: z.int().describe("The HTTP status of the engine's answer."),
    code: z.string().describe("The engine's own error code."),
    message: z.string().describe("The engine's own message."),
    details: z.unknown().optional().describe("The engine's own details, any JSON. Absent: it sent none."),
  })
  .meta({
    id: "EngineAnswer",
    description: "The error that the engine answered.",
  }) satisfies z.ZodType<EngineErrorDetail>;

const HINTS = {
  retryAfterMs: z
    .number()
    .optional()
    .describe("After so many milliseconds the same call may work. Absent: something must change first."),
  issues: z
    .array(Issue)
    .readonly()
    .optional()
    .describe("What is wrong with the input. Absent: nothing is known of it."),
  engineError: EngineAnswer.optional().describe("What the engine answered. Absent: it was not the engine."),
};

const TrpcErrorSchema = z
  .object({
    message: z.string().describe("What happened and what to do, for people. It never holds a secret."),
    code: z.int().describe("tRPC's number of `data.code`."),
    data: z
      .object({
        code: z.string().describe("tRPC's name of the HTTP status, for instance NOT_FOUND."),
        httpStatus: z.int().describe("The HTTP status. In a stream or a batch, the only place that has it."),
        path: z.string().nullable().describe("The procedure. null: the request reached none."),
        reason: ReasonSchema.describe("Why the request failed. Branch on it."),
        requestId: z.string().nullable().describe("The id of the request, as in the header `X-Request-Id`."),
        ...HINTS,
      })
      .describe("The error for programs."),
  })
  .meta({ id: "TrpcError", description: "Why a call failed." }) satisfies z.ZodType<Widened>;

/** `code` and `data.code` are numbers and names of tRPC's tables, which the document does not repeat. */
type Widened = Omit<TrpcErrorShape, "code" | "data"> & {
  code: number;
  data: Omit<TrpcErrorShape["data"], "code"> & { code: string };
};

/** The body of a refusal below `/trpc`. */
export const TrpcRefusal = z
  .object({ error: TrpcErrorSchema.describe("Why the call failed.") })
  .meta({ id: "TrpcRefusal", description: "The body of a refusal below `/trpc`." });

/** The data of the event `serialized-error`. */
export const StreamRefusal = TrpcErrorSchema;

/** The body of a refusal on every other path. */
export const RawRefusal = z
  .object({
    error: z
      .object({
        reason: ReasonSchema.describe("Why the request failed. Branch on it."),
        message: z.string().describe("What happened and what to do, for people. It never holds a secret."),
        requestId: z.string().describe("The id of the request, as in the header `X-Request-Id`."),
        ...HINTS,
      })
      .describe("Why the request failed."),
  })
  .meta({ id: "RawRefusal", description: "The body of a refusal outside of `/trpc`." });

export const GapSchema = z
  .object({
    fromSeq: z.int().describe("The first missing sequence number."),
    toSeq: z.int().describe("The last missing sequence number."),
    reason: z
      .enum(GAP_REASONS)
      .describe(
        "`retention`: the events were removed after ORCH_TURN_RETENTION_S. `lost`: the replica that had them died; some of these numbers may never have been used. `unknown_cursor`: your cursor is beyond every number of this turn.",
      ),
  })
  .meta({
    id: "TurnGap",
    description: "Sequence numbers that a reader cannot have, both ends included.",
  }) satisfies z.ZodType<TurnGap>;

const EventSchema = z
  .object({
    seq: z.int().describe("The event's number in its turn, from 1, without gaps."),
    at: instantText("When the event arrived from the engine."),
    type: z.string().describe("The event's type, as the engine named it; `message` if it named none."),
    data: z
      .unknown()
      .describe(
        "The event's data, as the engine sent it, numbers too. A string if what the engine sent is not JSON.",
      ),
  })
  .meta({ id: "TurnEvent", description: "One event of a turn." }) satisfies z.ZodType<TurnEvent>;

/** The data of an item of `turns.execute` and `turns.events`. */
export const TurnItemSchema = z
  .object({
    turnId: z.string().meta({ format: "uuid" }).describe("The turn's id."),
    events: z.array(EventSchema).readonly().describe("0 to 256 events, in order."),
    gap: GapSchema.optional().describe(
      "Missing events, which come before `events`. Absent: none are missing.",
    ),
    end: EndSchema.optional().describe(
      "The end of the turn, which comes after `events`. Absent: more items follow.",
    ),
  })
  .meta({
    id: "TurnItem",
    description:
      "What a reader gets at once. The item's `id` is the sequence number of its last event, gap or end.",
  }) satisfies z.ZodType<TurnItem>;

/** The data of the event `connected`. */
export const ConnectedSchema = z
  .object({
    reconnectAfterInactivityMs: z
      .int()
      .describe("If no byte comes for so many milliseconds, take the connection for dead and reconnect."),
  })
  .meta({ id: "Connected", description: "The first message of a stream." });
