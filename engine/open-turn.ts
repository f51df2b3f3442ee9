import { randomUUID } from "node:crypto";
import type { Brain } from "./brain.ts";
import { invalidRequest } from "./engine-error.ts";
import { forgetOldEvents } from "./event-log.ts";
import {
  addMessage,
  findLastExchange,
  findMessage,
  findUserMessage,
  forgetAfterMessage,
  setMessageContent,
  touchThread,
  type Message,
} from "./threads.ts";
import { addTurn } from "./turn-records.ts";
import type { Steering, TurnRequest } from "./turn-request.ts";

/** A recorded turn. Its thread has the user's message and not yet the answer. */
export interface Turn {
  readonly turnId: string;
  readonly taskId: string;
  readonly userMessage: Message;
  readonly direct: boolean;
  readonly steering: Steering;
}

/** `callerTurnId` is the caller's name for the turn, or null. */
export function openTurn(
  brain: Pick<Brain, "sql" | "transaction">,
  request: TurnRequest,
  callerTurnId: string | null,
): Turn {
  return brain.transaction(() => {
    forgetOldEvents(brain);
    touchThread(brain, request.taskId);
    const userMessage = placeMessage(brain, request);
    const turnId = randomUUID();
    addTurn(brain, { turnId, taskId: request.taskId, callerTurnId });
    return {
      turnId,
      taskId: request.taskId,
      userMessage,
      direct: request.direct,
      steering: request.steering,
    };
  });
}

function placeMessage(brain: Pick<Brain, "sql">, request: TurnRequest): Message {
  if (request.editMessageId !== undefined) return editMessage(brain, request, request.editMessageId);
  if (request.retryMessageId !== undefined) return rewindTo(brain, request.taskId, request.retryMessageId);
  const message: Message = {
    messageId: randomUUID(),
    taskId: request.taskId,
    exchange: findLastExchange(brain, request.taskId) + 1,
    role: "user",
    content: { text: request.message, media: request.media },
    createdAt: new Date().toISOString(),
  };
  addMessage(brain, message);
  return message;
}

/** Gives a user's message a new text and forgets everything after it. */
function editMessage(brain: Pick<Brain, "sql">, request: TurnRequest, messageId: string): Message {
  if (findMessage(brain, request.taskId, messageId)?.role === "assistant") {
    throw invalidRequest("edit_message_id names an answer; only a user's message can be edited");
  }
  const message = rewindTo(brain, request.taskId, messageId);
  const content = { text: request.message, media: request.media };
  setMessageContent(brain, messageId, content);
  return { ...message, content };
}

/** Finds the user's message that `messageId` names or answers, and forgets everything after it. */
function rewindTo(brain: Pick<Brain, "sql">, taskId: string, messageId: string): Message {
  const named = findMessage(brain, taskId, messageId);
  const message = named && findUserMessage(brain, taskId, named.exchange);
  if (!message) throw invalidRequest("the thread has no message with this id");
  forgetAfterMessage(brain, taskId, message.exchange);
  return message;
}
