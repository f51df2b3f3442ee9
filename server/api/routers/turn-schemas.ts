import { z } from "zod";
import { TURN_STATUSES } from "../../../db/schema.ts";
import { END_REASONS, END_STATUSES } from "../../turns/model/turn-end.ts";
import { isDeeperThan } from "../../json/json-depth.ts";
import { pageOf, plainObject, plainText } from "./field-schemas.ts";

const REQUEST_MAX_DEPTH = 64;
/** The engine's names of known fields. They are refused, because they could contradict the camelCase fields. */
const ENGINE_SPELLINGS = ["task_id", "edit_message_id", "retry_message_id"] as const;

const KnownRequest = z
  .looseObject({
    message: z.string().min(1),
    /** The thread. */
    taskId: plainText(512),
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
