import { z } from "zod";
import { TURN_STATUSES } from "../../../db/schema.ts";
import { END_REASONS, END_STATUSES } from "../../turns/model/turn-end.ts";
import { isDeeperThan } from "../../json/json-depth.ts";
import { instantText, instantTextOrNull } from "../../time/instant-text.ts";
import { END_REASON_MEANINGS, toMeaningText } from "./end-reason-meanings.ts";
import { IdempotencyKey, JsonArray, pageOf, plainObject, plainText, UserId, Uuid } from "./field-schemas.ts";
import { shownAs } from "./shown-as.ts";
import type { RespondAddress } from "../../turns/respond-to-turn.ts";

const REQUEST_MAX_DEPTH = 64;
const TaskId = plainText(512);
/** The engine's names of known fields. They are refused, because they could contradict the camelCase fields. */
const ENGINE_SPELLINGS = ["task_id", "edit_message_id", "retry_message_id"] as const;

const TURN_STATUS_MEANING =
  "`starting`: the engine has not accepted the request yet. `streaming`: the engine sends events. The others are ends, see `TurnEnd`.";

const KnownRequest = z
  .looseObject({
    message: z.string().min(1).describe("The user's message."),
    taskId: TaskId.describe(
      "The thread of the conversation, named by you. A task has at most one live turn: another one is refused with TURN_IN_PROGRESS.",
    ),
    media: z.array(z.unknown()).optional().describe("Attachments, in the engine's own format."),
    direct: z.boolean().optional().describe("The engine's own switch. It goes to the engine unchanged."),
    editMessageId: z
      .string()
      .optional()
      .describe("The message that this one replaces, by the engine's own id."),
    retryMessageId: z.string().optional().describe("The message to answer again, by the engine's own id."),
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
export const ExecuteRequestSchema = plainObject<z.output<typeof KnownRequest>>()
  .check((context) => {
    // Not piped into the schema, because its copy of the request would not have the request's source text.
    if (context.issues.length > 0) return;
    const { error } = KnownRequest.safeParse(context.value);
    for (const { path, message } of error?.issues ?? []) {
      context.issues.push({ code: "custom", path, message, input: context.value });
    }
  })
  .meta(shownAs(KnownRequest))
  .describe(
    "What the engine gets. Fields that are not listed here go to the engine unchanged, and numbers as you wrote them. `task_id`, `edit_message_id` and `retry_message_id` are refused: write them in camelCase.",
  );

const EngineError = z
  .object({
    code: z.string().describe("The engine's own error code."),
    message: z.string().describe("The engine's own message."),
    details: z.unknown().optional().describe("The engine's own details, any JSON. Absent: it sent none."),
  })
  .meta({ id: "EngineError", description: "An error that the engine reported." });

export const EndSchema = z
  .object({
    status: z
      .enum(END_STATUSES)
      .describe(
        "`completed`: the engine has answered in full. `failed`: see `reason`. `interrupted`: the turn was cut off, for instance by a restart of the engine. `cancelled`: a caller cancelled it.",
      ),
    reason: z
      .enum(END_REASONS)
      .nullable()
      .describe(`Why the turn ended. ${toMeaningText(END_REASON_MEANINGS)} null: completed.`),
    message: z.string().nullable().describe("The reason in words, for people. null: completed."),
    engineError: EngineError.nullable().describe(
      "The error that the engine reported. null: it reported none.",
    ),
    lastSeq: z
      .int()
      .describe("The end's own sequence number. It comes after every event that a reader may have seen."),
    engineMayContinue: z
      .boolean()
      .describe(
        "Whether the engine may still work on the task although the turn has ended. Until it has finished, it may refuse the next turn of this task.",
      ),
  })
  .meta({ id: "TurnEnd", description: "How a turn ended. Every turn has one end, after its last event." });

export const TurnSchema = z
  .object({
    turnId: z.string().meta({ format: "uuid" }).describe("The turn's id, as the caller chose it."),
    userId: z.string().describe("The user whose engine has the turn."),
    engineId: z.string().meta({ format: "uuid" }).describe("The engine that has the turn."),
    taskId: z.string().describe("The thread of the conversation."),
    status: z.enum(TURN_STATUSES).describe(TURN_STATUS_MEANING),
    generation: z.int().describe("The generation of the engine when the turn started."),
    lastSeq: z
      .int()
      .describe(
        "The last sequence number that readers can have. After the turn has ended: the end's own number. 0: no event yet.",
      ),
    bytes: z.int().describe("How many bytes the engine has sent so far."),
    waitsForPerson: z
      .boolean()
      .describe(
        "Whether the turn waits for a person's answer: `turns.respond` sends it. false also if the turn is not live at the replica that answers.",
      ),
    startedAt: instantText("When the turn was started."),
    endedAt: instantTextOrNull("When the turn ended. null: it is live."),
    end: EndSchema.nullable().describe("How the turn ended. null: it is live."),
  })
  .meta({ id: "Turn", description: "One `/execute` call to an engine, and its events." });

export const TurnPage = pageOf(TurnSchema);

export const StartedTurn = z.object({
  turnId: z.string().meta({ format: "uuid" }).describe("The turn's id, as the caller chose it."),
  status: z.enum(TURN_STATUSES).describe(TURN_STATUS_MEANING),
  generation: z.int().describe("The generation of the engine."),
  created: z.boolean().describe("Whether this call has started the turn. false: it existed already."),
});

/** A person's answer to the question of a turn. */
export const PersonAnswer = z
  .strictObject({
    turnId: Uuid.optional().describe("The turn that asks. Send either this, or `userId` and `taskId`."),
    userId: UserId.optional().describe(
      "With `taskId`, in the place of `turnId`. The two also reach a question whose turn has ended here.",
    ),
    taskId: TaskId.optional().describe("The thread that asks. Send it with `userId`."),
    requestId: z
      .union([TaskId, z.int()])
      .optional()
      .describe(
        "The question that the person answers: `request_id` of its `hitl_request`. If that question is not open any more, the answer is refused (ENGINE_ERROR with `engineError.code` NO_PENDING_REQUEST). Without it, the answer is for any open question of the task, perhaps one that the person has not seen.",
      ),
    answer: z.string().describe("What the person answers."),
    feedback: z.string().optional().describe("What the person says beside the answer."),
    contentBlocks: JsonArray.optional().describe(
      "More of the answer, in the engine's own format: a JSON array that nests at most 64 levels deep. It goes to the engine as you wrote it.",
    ),
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
  status: z.string().describe("What the engine says, at most 200 characters of it, or `accepted`."),
});
