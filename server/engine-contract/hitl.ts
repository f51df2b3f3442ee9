import { toJsonText } from "../json/json-text.ts";
import type { EngineConnections } from "./connections.ts";
import { type CallTarget, type JsonCall, postJson } from "./post-json.ts";

export interface HumanAnswer {
  taskId: string;
  answer: string;
  feedback?: string | undefined;
  /** Goes to the engine as it was sent. */
  contentBlocks?: readonly unknown[] | undefined;
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

function toBody({ taskId, answer, feedback, contentBlocks }: HumanAnswer): string {
  const members = [`"task_id":${JSON.stringify(taskId)}`, `"answer":${JSON.stringify(answer)}`];
  if (feedback !== undefined) members.push(`"feedback":${JSON.stringify(feedback)}`);
  if (contentBlocks !== undefined) members.push(`"content_blocks":${toJsonText(contentBlocks)}`);
  return `{${members.join(",")}}`;
}
