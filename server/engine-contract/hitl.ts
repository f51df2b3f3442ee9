import { DomainError } from "../errors.ts";
import { toJsonText } from "../json/json-text.ts";
import { NO_PENDING_REQUEST } from "./call-failure.ts";
import type { EngineConnections } from "./connections.ts";
import { type CallTarget, type JsonCall, postJson } from "./post-json.ts";

export type QuestionId = string | number;

export interface HumanAnswer {
  taskId: string;
  /** The question that the answer is for, as the engine names it. undefined: the open one. */
  requestId?: QuestionId | undefined;
  answer: string;
  feedback?: string | undefined;
  /** Goes to the engine as it was sent. */
  contentBlocks?: readonly unknown[] | undefined;
}

/** What an engine answers that has no such question. It says so too for a turn whose questions this service knows. */
export function noSuchQuestion(requestId: QuestionId): DomainError {
  const message =
    `the question ${JSON.stringify(requestId)} is not open: it may have an answer already; ` +
    "read the turn's events, and answer a question that is open";
  const engineError = { status: 422, code: NO_PENDING_REQUEST, message };
  return new DomainError("ENGINE_ERROR", message, { engineError });
}

export interface AcceptedAnswer {
  /** As the engine says it. */
  status: string;
  /** The question that was answered. undefined: the engine does not say. */
  requestId: unknown;
}

const STATUS_MAX_LENGTH = 200;

/**
 * Sends one `POST /hitl/respond`, once. Throws what `postJson` throws; NOT_SUPPORTED_BY_ENGINE if the engine has no
 * such call. If the task has no open question, the engine's error code is NO_PENDING_REQUEST.
 */
export async function postHumanAnswer(
  connections: EngineConnections,
  target: CallTarget,
  { timeoutMs, ...given }: HumanAnswer & Pick<JsonCall, "timeoutMs">,
): Promise<AcceptedAnswer> {
  const { value } = await postJson(connections, target, {
    path: "/hitl/respond",
    body: toBody(given),
    timeoutMs,
    readOnly: false,
    isOptional: true,
  });
  const { status, request_id: requestId } = value;
  const isText = typeof status === "string" && status !== "";
  return { status: isText ? status.slice(0, STATUS_MAX_LENGTH).toWellFormed() : "accepted", requestId };
}

function toBody({ taskId, requestId, answer, feedback, contentBlocks }: HumanAnswer): string {
  const members = [`"task_id":${JSON.stringify(taskId)}`];
  if (requestId !== undefined) members.push(`"request_id":${JSON.stringify(requestId)}`);
  members.push(`"answer":${JSON.stringify(answer)}`);
  if (feedback !== undefined) members.push(`"feedback":${JSON.stringify(feedback)}`);
  if (contentBlocks !== undefined) members.push(`"content_blocks":${toJsonText(contentBlocks)}`);
  return `{${members.join(",")}}`;
}
