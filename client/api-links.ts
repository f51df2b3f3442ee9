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
import { followSignals } from "./follow-signals.ts";
import { findRepeat } from "./mutation-repeats.ts";
import type { Transport } from "./transport.ts";

/** Links want an address when they are made; the transport puts the current replica's in its place. */
const BASE = "http://replica.invalid/trpc";

/**
 * How a call becomes a request. Each is a request of its own: in a batch the quick ones would wait for the slow, and
 * share their failure. Inputs travel in bodies and the key in a header, so that neither is in a log of URLs.
 */
export function toApiLinks(transport: Transport, closed: AbortSignal): TRPCLink<AppRouter>[] {
  const toHttpLink = (mayRepeat: boolean) =>
    httpLink<AppRouter>({ url: BASE, methodOverride: "POST", fetch: toFetch(transport, mayRepeat) });
  return [
    stopWhenClosed(closed),
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

function stopWhenClosed(closed: AbortSignal): TRPCLink<AppRouter> {
  return () =>
    ({ op, next }) =>
      observable((observer) => {
        const call = new AbortController();
        const unfollow = followSignals(call, [closed, op.signal ?? undefined]);
        const asking = next({ ...op, signal: call.signal }).subscribe({
          next: (value) => observer.next(value),
          error: (error) => {
            unfollow();
            // tRPC tells of an abort, and not of its reason.
            observer.error(closed.aborted ? TRPCClientError.from(toError(closed.reason)) : error);
          },
          complete: () => {
            unfollow();
            observer.complete();
          },
        });
        return () => {
          unfollow();
          asking.unsubscribe();
        };
      });
}

function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

const addIdempotencyKey: TRPCLink<AppRouter> =
  () =>
  ({ op, next }) => {
    if (op.type !== "mutation" || findRepeat(op.path) !== "keyed" || hasIdempotencyKey(op)) return next(op);
    return next({ ...op, input: { ...(op.input as object), idempotencyKey: crypto.randomUUID() } });
  };

function hasIdempotencyKey({ input }: Operation): boolean {
  return (input as { idempotencyKey?: unknown } | undefined)?.idempotencyKey !== undefined;
}

function mayRepeat(op: Operation): boolean {
  return op.type === "query" || findRepeat(op.path) === "harmless" || hasIdempotencyKey(op);
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

/** Also called for each reconnect, which brings the last event's id along in a header. */
function toStreamFetch(transport: Transport): FetchLike {
  return async (input, init) => {
    const url = new URL(String(input));
    const lastEventId = init.headers["Last-Event-ID"];
    return transport.send(
      {
        path: url.pathname.slice("/trpc/".length),
        body: url.searchParams.get("input") ?? undefined,
        headers: {
          accept: "text/event-stream",
          ...(lastEventId !== undefined && { "last-event-id": lastEventId }),
        },
        signal: init.signal,
        isStream: true,
      },
      { mayRepeat: true },
    );
  };
}
