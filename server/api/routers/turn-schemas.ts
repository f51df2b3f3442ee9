import { z } from "zod";
import { TURN_STATUSES } from "../../../db/schema.ts";
import { END_REASONS, END_STATUSES } from "../../turns/model/turn-end.ts";
import { isDeeperThan } from "../../json/json-depth.ts";
import type { RespondAddress } from "../../turns/respond-to-turn.ts";
import { IdempotencyKey, JsonArray, pageOf, plainObject, plainText, UserId, Uuid } from "./field-schemas.ts";

const REQUEST_MAX_DEPTH = 64;
const TaskId = plainText(512);
/** The engine's names of known fields. They are refused, because they could contradict the camelCase fields. */
const ENGINE_SPELLINGS = ["task_id", "edit_message_id", "retry_message_id"] as const;

const KnownRequest = z
  .looseObject({
    message: z.string().min(1),
    /** The thread. */
    taskId: TaskId,
    media: z.array(z.unknown()).optional(),
    direct: z.boolean().optional(),
    editMessageId: z.string().optional(),
    retryMessageId: z.string().optional(),
  })
  .superRefine((request, refinement) => {
    for (const name of ENGINE_SPELLINGS) {
      if (!Object.hasOwn(request, name)) continue;
      refinement.addIssue({ code: "custom", path: [name], message: "must be spelled in camelCase" });
    }
    if (isDeeperThan(request, REQUEST_MAX_DEPTH)) {
      refinement.addIssue({
        code: "custom",
        message: `must not nest deeper than ${REQUEST_MAX_DEPTH} levels`,
      });
    }
  });

/** The body of `/execute`, with known fields in camelCase. Unknown fields go to the engine unchanged. */
export const ExecuteRequestSchema = plainObject<z.output<typeof KnownRequest>>().check((context) => {
  // Not piped into the schema, because its copy of the request would not have the request's source text.
  if (context.issues.length > 0) return;
  const { error } = KnownRequest.safeParse(context.value);
  for (const { path, message } of error?.issues ?? []) {
    context.issues.push({ code: "custom", path, message, input: context.value });
  }
});

export const EndSchema = z.object({
  status: z.enum(END_STATUSES),
  reason: z.enum(END_REASONS).nullable(),
  message: z.string().nullable(),
  engineError: z
    .object({ code: z.string(), message: z.string(), details: z.unknown().optional() })
    .nullable(),
  lastSeq: z.number(),
  engineMayContinue: z.boolean(),
});

export const TurnSchema = z.object({
  turnId: z.string(),
  userId: z.string(),
  engineId: z.string(),
  taskId: z.string(),
  status: z.enum(TURN_STATUSES),
  generation: z.number(),
  lastSeq: z.number(),
  bytes: z.number(),
  startedAt: z.string(),
  endedAt: z.string().nullable(),
  end: EndSchema.nullable(),
});

export const TurnPage = pageOf(TurnSchema);

export const StartedTurn = z.object({
  turnId: z.string(),
  status: z.enum(TURN_STATUSES),
  generation: z.number(),
  /** False if the turn existed already. */
  created: z.boolean(),
});

/** A person's answer to the question of a turn. */
export const PersonAnswer = z
  .strictObject({
    /** The turn that asks. */
    turnId: Uuid.optional(),
    /** Instead of the turn's id: the user and the task. They also reach a question whose turn has ended here. */
    userId: UserId.optional(),
    taskId: TaskId.optional(),
    answer: z.string(),
    feedback: z.string().optional(),
    /** Go to the engine unchanged. */
    contentBlocks: JsonArray.optional(),
    idempotencyKey: IdempotencyKey,
  })
  .refine((input) => findAddress(input) !== undefined, {
    path: ["turnId"],
    error: "must be there, or userId and taskId instead",
  });

type AddressFields = Readonly<Partial<Record<"turnId" | "userId" | "taskId", string | undefined>>>;

function findAddress({ turnId, userId, taskId }: AddressFields): RespondAddress | undefined {
  if (turnId !== undefined) return userId === undefined && taskId === undefined ? { turnId } : undefined;
  return userId !== undefined && taskId !== undefined ? { userId, taskId } : undefined;
}

/** For an input that the schema accepted. */
export function toAddress(input: AddressFields): RespondAddress {
  const address = findAddress(input);
  if (address === undefined) throw new Error("an answer without an address");
  return address;
}

export const AcceptedAnswer = z.object({
  /** What the engine says, or "accepted". */
  status: z.string(),
});
