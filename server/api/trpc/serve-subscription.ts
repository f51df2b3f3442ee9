import type { AnyTRPCProcedure } from "@trpc/server";
import type { FastifyReply, FastifyRequest } from "fastify";
import { isAbortError } from "../../time/abortable.ts";
import { noteFailure } from "../http/note-failure.ts";
import { toSearch } from "../http/request-url.ts";
import { appRouter } from "../routers/router.ts";
import type { UnsentAnswers } from "../http/unsent-answers.ts";
import { EventStream, SILENCE_MS, type StreamFormat, toEvent } from "../sse/event-stream.ts";
import { findLastEventId } from "../sse/last-event-id.ts";
import { runStream, type StreamCall } from "../turn-stream/run-stream.ts";
import { parseInput, readInputText } from "./input-text.ts";
import { toTrpcErrorShape } from "./api-error.ts";

const FORMAT: StreamFormat = {
  // As tRPC's own handler sends it.
  headers: { vary: "trpc-accept, accept" },
  greeting: toEvent("connected", JSON.stringify({ reconnectAfterInactivityMs: SILENCE_MS })),
  ping: toEvent("ping", ""),
};
const RETURNED = toEvent("return", "");

// The record is flat and keyed by path, although its type says otherwise.
const PROCEDURES: ReadonlyMap<string, AnyTRPCProcedure> = new Map(
  Object.entries(appRouter._def.procedures as unknown as Record<string, AnyTRPCProcedure>),
);

export interface SubscriptionCall extends Omit<StreamCall, "readInput"> {
  reply: FastifyReply;
  unsent: UnsentAnswers;
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
 * transformer, and expects items that are encoded already.
 */
export async function serveSubscription({ reply, unsent, ...call }: SubscriptionCall): Promise<void> {
  const stream = new EventStream(reply, { unsent, format: FORMAT });
  // Greet two turns of the event loop later, so that the queries for the first item are sent first.
  const greetSoon = () => setImmediate(() => setImmediate(() => stream.begin()));
  try {
    await runStream({ ...call, readInput }, stream, greetSoon);
    stream.write(RETURNED);
  } catch (error) {
    // After an AbortError the stream ends without `return`, so the reader comes back for the rest.
    if (!isAbortError(error)) stream.write(toRefusal(error, call));
  } finally {
    // Always end the stream: its pings would keep an abandoned stream open.
    stream.end();
  }
}

function toRefusal(error: unknown, { path, request, ctx, left }: Omit<StreamCall, "readInput">): string {
  noteFailure(ctx.app, error, { request, path, left: left.aborted });
  const shape = toTrpcErrorShape(error, { path, requestId: request.id });
  return toEvent("serialized-error", JSON.stringify(shape));
}

/** Reads the input as tRPC does. A reader that comes back sends its cursor as `Last-Event-ID`, which goes into it. */
function readInput(request: FastifyRequest): unknown {
  const query = new URLSearchParams(toSearch(request.url));
  const text = readInputText(request);
  const input = text === undefined ? undefined : parseInput(text);
  const lastEventId = findLastEventId(request, query.get("lastEventId") ?? query.get("Last-Event-Id"));
  if (lastEventId === undefined) return input;
  if (input === undefined || input === null) return { lastEventId };
  return typeof input === "object" && !Array.isArray(input) ? { ...input, lastEventId } : input;
}
