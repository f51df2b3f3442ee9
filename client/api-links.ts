import { observable } from "@trpc/server/observable";
import {
  TRPCClientError,
  httpLink,
  httpSubscriptionLink,
  splitLink,
  type Operation,
  type TRPCLink,
} from "@trpc/client";
import { EventSource, type FetchLike } from "eventsource";
import type { AppRouter } from "../server/api/routers/router.ts";
import { ConnectionError } from "./connection-error.ts";
import type { ErrorShape } from "./enginehouse-error.ts";
import { toErrorShape } from "./reply.ts";
import { findRetryRule } from "./retry-rules.ts";
import type { Answer, Transport } from "./transport.ts";

/** Links need an address when they are created. The transport replaces it by the current replica's. */
const BASE = "http://replica.invalid/trpc";

/**
 * Turns calls into requests. There is no batching: in a batch quick calls wait for slow ones and fail with them.
 * Inputs travel in bodies and the key in a header, so that logs of URLs have neither.
 */
export function toApiLinks(transport: Transport, closed: AbortSignal): TRPCLink<AppRouter>[] {
  const toHttpLink = (mayRepeat: boolean) =>
    httpLink<AppRouter>({ url: BASE, methodOverride: "POST", fetch: toFetch(transport, mayRepeat) });
  return [
    stopWhenClosed(transport, closed),
    addIdempotencyKey,
    splitLink({
      condition: (op) => op.type === "subscription",
      true: httpSubscriptionLink<AppRouter, typeof EventSource>({
        url: BASE,
        EventSource,
        eventSourceOptions: { fetch: toStreamFetch(transport) },
      }),
      false: splitLink({ condition: mayRepeat, true: toHttpLink(true), false: toHttpLink(false) }),
    }),
  ];
}

function stopWhenClosed(transport: Transport, closed: AbortSignal): TRPCLink<AppRouter> {
  return () =>
    ({ op, next }) =>
      observable((observer) => {
        const call = new AbortController();
        const unfollow = transport.signals.follow(call, [closed, op.signal ?? undefined]);
        const subscription = next({ ...op, signal: call.signal }).subscribe({
          next: (value) => observer.next(value),
          error: (error) => {
            unfollow();
            // tRPC's error for an abort lacks the reason, so restore it.
            observer.error(closed.aborted ? TRPCClientError.from(closed.reason as Error) : error);
          },
          complete: () => {
            unfollow();
            observer.complete();
          },
        });
        return () => {
          unfollow();
          subscription.unsubscribe();
        };
      });
}

const addIdempotencyKey: TRPCLink<AppRouter> =
  () =>
  ({ op, next }) => {
    if (op.type !== "mutation" || findRetryRule(op.path) !== "keyed" || hasIdempotencyKey(op))
      return next(op);
    return next({ ...op, input: { ...(op.input as object), idempotencyKey: crypto.randomUUID() } });
  };

function hasIdempotencyKey({ input }: Operation): boolean {
  return (input as { idempotencyKey?: unknown } | undefined)?.idempotencyKey !== undefined;
}

function mayRepeat(op: Operation): boolean {
  return op.type === "query" || findRetryRule(op.path) === "idempotent" || hasIdempotencyKey(op);
}

type LinkFetch = NonNullable<Parameters<typeof httpLink<AppRouter>>[0]["fetch"]>;

function toFetch(transport: Transport, mayRepeat: boolean): LinkFetch {
  return async (input, init) =>
    transport.send(
      {
        path: new URL(String(input)).pathname.slice("/trpc/".length),
        body: typeof init?.body === "string" ? init.body : undefined,
        signal: init?.signal ?? undefined,
      },
      { mayRepeat },
    );
}

/** EventSource calls this again for each reconnect, with the id of the last event in a header. */
function toStreamFetch(transport: Transport): FetchLike {
  return async (input, init) => {
    const url = new URL(String(input));
    const lastEventId = init.headers["Last-Event-ID"];
    const request = {
      path: url.pathname.slice("/trpc/".length),
      body: url.searchParams.get("input") ?? undefined,
      headers: {
        accept: "text/event-stream",
        ...(lastEventId !== undefined && { "last-event-id": lastEventId }),
      },
      signal: init.signal,
      isStream: true,
    };
    return transport.send(request, { mayRepeat: true }).then(toStream, (error: unknown) => {
      if (!(error instanceof ConnectionError) || error.failure.kind !== "foreign") throw error;
      const { reason, message } = error;
      const data = { reason, httpStatus: 400, code: "BAD_REQUEST", requestId: null, path: null };
      return toErrorStream(toErrorShape(message, data as ErrorShape["data"]));
    });
  };
}

function toStream(answer: Answer): Answer | Response {
  return answer.reply !== undefined && "error" in answer.reply ? toErrorStream(answer.reply.error) : answer;
}

/** EventSource hides the answers that it takes for failures, or asks again for ever. tRPC reads this stream's error. */
function toErrorStream(error: object): Response {
  const headers = { "content-type": "text/event-stream" };
  return new Response(`event: serialized-error\ndata: ${JSON.stringify(error)}\n\n`, { headers });
}
