import { callTRPCProcedure } from "@trpc/server";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { isAbortError } from "../../time/abortable.ts";
import { noteFailure } from "../http/note-failure.ts";
import { toPath } from "../http/request-url.ts";
import { sendJson } from "../http/send-json.ts";
import { appRouter } from "../routers/router.ts";
import { EventStream } from "../sse/event-stream.ts";
import { beginCall, type BegunCall, type RouteContext } from "../trpc/begin-call.ts";
import { isSubscription } from "../trpc/serve-subscription.ts";
import { runStream } from "../turn-stream/run-stream.ts";
import { encodeForRaw } from "./encode-for-raw.ts";
import { toRawError } from "./raw-error.ts";
import { RAW_FORMAT } from "./raw-format.ts";
import { RAW_ROUTES, type RawRoute } from "./raw-routes.ts";

/** Serves the raw routes. They call the procedures of tRPC's router, so keys, scopes and checks are the same. */
export function mountRaw(server: FastifyInstance, context: RouteContext): void {
  for (const route of RAW_ROUTES) {
    server.route({
      method: route.method,
      url: route.url,
      bodyLimit: route.bodyMaxBytes,
      // Before the body: a refusal of the body carries the id, too.
      onRequest: async (request, reply) => {
        request.turnId = route.findTurnId(request) ?? null;
        if (request.turnId !== null) reply.header("x-turn-id", request.turnId);
      },
      handler: async (request, reply) => answer(context, { route, request, reply }),
    });
  }
}

interface RawCall {
  route: RawRoute;
  request: FastifyRequest;
  reply: FastifyReply;
}

/** Throws the refusal; the error handler replies. */
async function answer(context: RouteContext, call: RawCall): Promise<FastifyReply> {
  // The input has its texts with it, so the procedure need not find them.
  const { request, reply } = call;
  const begun = beginCall(context, { request, reply, encode: encodeForRaw, findInputText: () => undefined });
  if (begun === undefined) return reply;
  try {
    return isSubscription(call.route.procedure)
      ? await stream(context, call, begun)
      : await answerJson(context, call, begun);
  } catch (error) {
    throw toRawError(error);
  }
}

async function answerJson(
  context: RouteContext,
  { route, request, reply }: RawCall,
  { ctx, left }: BegunCall,
): Promise<FastifyReply> {
  let read: { input: unknown } | undefined;
  const output: unknown = await callTRPCProcedure({
    router: appRouter,
    path: route.procedure,
    type: "mutation",
    getRawInput: async () => (read ??= { input: route.toInput(request) }).input,
    ctx,
    signal: left,
    batchIndex: 0,
  });
  return sendJson(context, { request, reply, status: 200, text: JSON.stringify(output) });
}

/** After the first byte nothing is thrown: a failure ends the response without an end event, so its reader resumes. */
async function stream(
  { unsent }: RouteContext,
  { route, request, reply }: RawCall,
  { ctx, left }: BegunCall,
): Promise<FastifyReply> {
  const events = new EventStream(reply, { unsent, format: RAW_FORMAT });
  try {
    await runStream({ path: route.procedure, request, ctx, left, readInput: route.toInput }, events);
  } catch (error) {
    if (!isAbortError(error)) {
      if (!events.hasBegun && !left.aborted) throw error;
      noteFailure(ctx.app, error, { request, path: toPath(request.url), left: left.aborted });
    }
    // The reader resumes elsewhere. An error status would stop a browser's EventSource for good.
    events.end();
    return reply.hijack();
  }
  // The reader has the turn's end already. No other status stops a browser's EventSource without an error.
  if (!events.hasBegun && !left.aborted) return reply.code(204).send();
  events.end();
  return reply.hijack();
}
