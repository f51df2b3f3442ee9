import { type AnyTRPCProcedure, callTRPCProcedure, TRPCError, type TrackedEnvelope } from "@trpc/server";
import type { FastifyReply, FastifyRequest } from "fastify";
import { toTrpcErrorShape } from "../trpc/api-error.ts";
import { EventStream, SILENCE_MS, toEvent } from "./event-stream.ts";
import { logApiError } from "../http/log-api-error.ts";
import type { RequestContext } from "../trpc/request-context.ts";
import { toSearch } from "../http/request-url.ts";
import { appRouter } from "../routers/router.ts";

const CONNECTED = toEvent("connected", JSON.stringify({ reconnectAfterInactivityMs: SILENCE_MS }));
const RETURNED = toEvent("return", "");

// By path, whatever the type says of it.
const PROCEDURES = Object.entries(appRouter._def.procedures as unknown as Record<string, AnyTRPCProcedure>);
const SUBSCRIPTIONS: ReadonlySet<string> = new Set(
  PROCEDURES.flatMap(([path, { _def }]) => (_def.type === "subscription" ? [path] : [])),
);

export interface SubscriptionCall {
  path: string;
  request: FastifyRequest;
  reply: FastifyReply;
  ctx: RequestContext;
  /** Aborts when the caller leaves. */
  left: AbortSignal;
}

/** True for the path of a procedure that `serveSubscription` serves. */
export function isSubscription(path: string): boolean {
  return SUBSCRIPTIONS.has(path);
}

/**
 * Answers the call of a subscription, in the events that tRPC's links expect of its own HTTP handler. That one takes
 * three generators and four web streams for a stream, which was half of what an open one held, and a third of what an
 * event cost. There is no transformer here, and all of our subscriptions yield tracked items.
 */
export async function serveSubscription({
  path,
  request,
  reply,
  ctx,
  left,
}: SubscriptionCall): Promise<void> {
  const stream = new EventStream(reply);
  let greeting = CONNECTED;
  const say = (events: string) => {
    const text = greeting + events;
    greeting = "";
    return text === "" || stream.write(text);
  };
  let read: { input: unknown } | undefined;
  try {
    const items = await callTRPCProcedure({
      router: appRouter,
      path,
      type: "subscription",
      getRawInput: async () => (read ??= { input: readInput(request) }).input,
      ctx,
      signal: left,
      batchIndex: 0,
    });
    // A turn of the loop later, when the queries that the first item waits for have left.
    setImmediate(() => setImmediate(() => say("")));
    for await (const [id, item] of items as AsyncIterable<TrackedEnvelope<unknown>>) {
      if (!say(toItem(id, JSON.stringify(item)))) await stream.untilRoom();
    }
    say(RETURNED);
  } catch (error) {
    // Without a word: its reader comes back for the rest.
    if (!isAbort(error)) say(toRefusal(error, { path, request, ctx, left }));
  } finally {
    // Whatever happens: pings would keep a stream alive that nobody writes any more.
    stream.end();
  }
}

function toRefusal(error: unknown, call: Omit<SubscriptionCall, "reply">): string {
  const place = { path: call.path, requestId: call.request.id };
  logApiError(call.ctx.app.log, error, { ...place, left: call.left.aborted });
  return toEvent("serialized-error", JSON.stringify(toTrpcErrorShape(error, place)));
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}

// The third newline is tRPC's, too.
function toItem(id: string, json: string): string {
  return `data: ${json}\nid: ${id}\n\n\n`;
}

/** The input, with the cursor of a reader who comes back in its place; as tRPC reads both. */
function readInput({ method, body, url, headers }: FastifyRequest): unknown {
  const query = new URLSearchParams(toSearch(url));
  const text = method === "GET" ? query.get("input") : body;
  const input = typeof text === "string" && text !== "" ? parseInput(text) : undefined;
  const lastEventId = headers["last-event-id"] ?? query.get("lastEventId") ?? query.get("Last-Event-Id");
  if (!lastEventId) return input;
  if (input === undefined || input === null) return { lastEventId };
  return typeof input === "object" && !Array.isArray(input) ? { ...input, lastEventId } : input;
}

function parseInput(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TRPCError({ code: "BAD_REQUEST", message: "the input is not JSON", cause });
  }
}
