import type { FastifyReply, FastifyRequest } from "fastify";
import { CallerWatch } from "../turn-stream/caller-watch.ts";
import { addRetryAfter } from "./refuse.ts";
import { cutConnection, cutOnceStalled, type UnsentAnswers } from "./unsent-answers.ts";

/** The kernel takes shorter answers at once, mostly. */
const LARGE_ANSWER_LENGTH = 64 * 1024;

export interface SendContext {
  unsent: UnsentAnswers;
  /** Aborts when the server closes. */
  closing: AbortSignal;
}

export interface JsonAnswer {
  request: FastifyRequest;
  reply: FastifyReply;
  status: number;
  text: string;
}

/** Sends the text in one write with its length. As a stream it would pass through three more layers in chunks. */
export function sendJson(ctx: SendContext, answer: JsonAnswer): FastifyReply {
  const { request, reply, status, text } = answer;
  addRetryAfter({ request, reply });
  reply.code(status).type("application/json");
  if (text.length > LARGE_ANSWER_LENGTH) boundUnsent(ctx, answer);
  return reply.send(text);
}

/** A caller that does not take its answer must not hold it in memory for ever, and not at all once its key is refused. */
function boundUnsent({ unsent, closing }: SendContext, { request, reply, text }: JsonAnswer): void {
  const { raw: response } = reply;
  const { socket } = request.raw;
  unsent.add(response, { socket, bytes: text.length });
  cutOnceStalled(response, socket);
  const { caller, actorName } = request;
  const watch = caller && actorName !== null ? new CallerWatch({ ...caller, closing }, undefined) : undefined;
  watch?.signal.addEventListener("abort", () => {
    if (watch.refused !== undefined) cutConnection(socket);
  });
  response.once("close", () => {
    watch?.[Symbol.dispose]();
    unsent.remove(response);
  });
}
