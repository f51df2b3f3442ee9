import type { FastifyReply, FastifyRequest } from "fastify";
import type { BodyBudget } from "../http/body-budget.ts";
import { addRateHeaders } from "../http/rate-headers.ts";
import { getCaller, type CallerContext } from "../http/request-caller.ts";
import type { SendContext } from "../http/send-json.ts";
import type { RequestContext } from "./request-context.ts";
import { StandIns } from "./stand-ins.ts";

/** What every route needs that calls procedures. */
export interface RouteContext
  extends
    SendContext,
    CallerContext,
    Pick<RequestContext, "app" | "readiness" | "closing" | "maxOpenStreams"> {
  budget: BodyBudget;
}

export interface CallInput extends Pick<RequestContext, "findInputText" | "encode"> {
  request: FastifyRequest;
  reply: FastifyReply;
}

export interface BegunCall {
  ctx: RequestContext;
  /** Aborts when the caller leaves. */
  left: AbortSignal;
}

/** Makes the context of a request's calls. undefined: the caller has left. Throws why the request's body was refused. */
export function beginCall(
  options: RouteContext,
  { request, reply, findInputText, encode }: CallInput,
): BegunCall | undefined {
  if (reply.raw.destroyed) {
    reply.hijack();
    return undefined;
  }
  const left = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) left.abort();
  });
  if (request.incoming?.refusal !== undefined) throw request.incoming.refusal;
  const { app, readiness, closing, maxOpenStreams } = options;
  const ctx: RequestContext = {
    app,
    readiness,
    closing,
    maxOpenStreams,
    ...getCaller(options, request),
    requestId: request.id,
    noteRates: (rates) => addRateHeaders(reply, rates),
    findInputText,
    standIns: new StandIns(),
    encode,
  };
  return { ctx, left: left.signal };
}
