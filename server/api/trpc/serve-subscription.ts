import { type AnyTRPCProcedure, callTRPCProcedure, TRPCError, type TrackedEnvelope } from "@trpc/server";
import type { FastifyReply, FastifyRequest } from "fastify";
import { isAbortError } from "../../time/abortable.ts";
import { noteFailure } from "../http/note-failure.ts";
import { toSearch } from "../http/request-url.ts";
import { appRouter } from "../routers/router.ts";
import type { UnsentAnswers } from "../http/unsent-answers.ts";
import { EventStream, SILENCE_MS, toEvent } from "../sse/event-stream.ts";
import { readInputText } from "./input-text.ts";
import { toTrpcErrorShape } from "./api-error.ts";
import type { RequestContext } from "./request-context.ts";

const CONNECTED = toEvent("connected", JSON.stringify({ reconnectAfterInactivityMs: SILENCE_MS }));
const RETURNED = toEvent("return", "");

// The record is flat and keyed by path, although its type says otherwise.
const PROCEDURES: ReadonlyMap<string, AnyTRPCProcedure> = new Map(
  Object.entries(appRouter._def.procedures as unknown as Record<string, AnyTRPCProcedure>),
);

export interface SubscriptionCall {
  path: string;
  request: FastifyRequest;
  reply: FastifyReply;
  ctx: RequestContext;
  unsent: UnsentAnswers;
  /** Aborts when the caller leaves. */
  left: AbortSignal;
}

/** True for the path of a procedure that `serveSubscription` serves. */
export function isSubscription(path: string): boolean {
  return PROCEDURES.get(path)?._def.type === "subscription";
}

/** True for the path of one procedure; false for a batch of several and for an unknown path. */
export function isProcedure(path: string): boolean {
  return PROCEDURES.has(path);
}

/**
 * Serves a subscription in the format that tRPC's links expect. tRPC's own HTTP handler uses three generators and four
 * web streams for each stream: half of an open stream's memory, and a third of the CPU of an event. This one needs no
 * transformer, and expects tracked items of JSON text only.
 */
export async function serveSubscription(call: SubscriptionCall): Promise<void> {
  const { path, request, reply, ctx, unsent, left } = call;
  const stream = new EventStream(reply, unsent);
  let greeting = CONNECTED;
  const send = (events: string) => {
    const text = greeting + events;
    greeting = "";
    if (text !== "") stream.write(text);
  };
  const sendItem = ({ value, done }: IteratorResult<TrackedEnvelope<string>, unknown>) => {
    if (done !== true) send(toItem(value[0], value[1]));
    return done !== true;
  };
  let read: { input: unknown } | undefined;
  let items: AsyncIterator<TrackedEnvelope<string>> | undefined;
  try {
    const iterable: AsyncIterable<TrackedEnvelope<string>> = await callTRPCProcedure({
      router: appRouter,
      path,
      type: "subscription",
      getRawInput: async () => (read ??= { input: readInput(request) }).input,
      ctx: { ...ctx, connection: stream },
      signal: left,
      batchIndex: 0,
    });
    items = iterable[Symbol.asyncIterator]();
    // Greet two turns of the event loop later, so that the queries for the first item are sent first.
    setImmediate(() => setImmediate(() => send("")));
    // Not `for await`: it would keep the last item in memory for as long as the stream waits for the next one.
    while (sendItem(await items.next())) {
      if (read === undefined) continue;
      // The call has begun. A stream may last for hours, so drop its input, which may be large.
      read = undefined;
      request.body = undefined;
      request.incoming?.drop();
    }
    send(RETURNED);
  } catch (error) {
    // After an AbortError the stream ends without `return`, so the reader comes back for the rest.
    if (!isAbortError(error)) send(toRefusal(error, call));
  } finally {
    await items?.return?.();
    // Always end the stream: its pings would keep an abandoned stream open.
    stream.end();
  }
}

function toRefusal(error: unknown, { path, request, ctx, left }: SubscriptionCall): string {
  noteFailure(ctx.app.log, error, { request, path, left: left.aborted });
  const shape = toTrpcErrorShape(error, { path, requestId: request.id });
  return toEvent("serialized-error", JSON.stringify(shape));
}

// tRPC's handler, too, ends an item with three newlines.
function toItem(id: string, json: string): string {
  return `data: ${json}\nid: ${id}\n\n\n`;
}

/** Reads the input as tRPC does. A reader that comes back sends its cursor as `Last-Event-ID`, which goes into it. */
function readInput(request: FastifyRequest): unknown {
  const query = new URLSearchParams(toSearch(request.url));
  const text = readInputText(request);
  const input = text === undefined ? undefined : parseInput(text);
  const lastEventId =
    request.headers["last-event-id"] ?? query.get("lastEventId") ?? query.get("Last-Event-Id");
  if (!lastEventId) return input;
  if (input === undefined || input === null) return { lastEventId };
  return typeof input === "object" && !Array.isArray(input) ? { ...input, lastEventId } : input;
}

function parseInput(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TRPCError({ code: "BAD_REQUEST", message: "the input is not valid JSON", cause });
  }
}
