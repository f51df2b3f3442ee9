import type { EventSourceMessage } from "eventsource-parser";
import { EnginehouseError, fromErrorShape, toEnginehouseError, type ErrorData } from "./enginehouse-error.ts";
import { followSignals } from "./follow-signals.ts";
import { readSse } from "./read-sse.ts";
import type { Transport } from "./transport.ts";
import type { TurnItem } from "./turn-event.ts";

/** Servers say how long they are never silent; until then, and when they do not. */
const DEFAULT_SILENCE_MS = 30_000;

export interface TurnPlace {
  turnId: string;
  /** The last sequence number that the reader has; 0 is the beginning. */
  afterSeq: number;
}

export interface SequencedItem {
  /** Of the last thing in the item. */
  lastSeq: number;
  item: TurnItem;
}

/** A turn from its beginning, which was begun by opening this; whoever takes it reads on. */
export interface OpenedTurn {
  first: SequencedItem;
  rest: AsyncGenerator<SequencedItem | "alive", void>;
  connection: AbortController;
}

/**
 * Starts the turn or joins it, and returns once that has happened. One attempt: throws the refusal, and
 * CONNECTION_LOST when it is not known whether it has.
 */
export async function executeTurn(
  transport: Transport,
  input: object,
  signals: readonly (AbortSignal | undefined)[],
): Promise<OpenedTurn> {
  const connection = new AbortController();
  // Also while nobody has taken it yet; whoever takes it or drops it aborts it in the end.
  connection.signal.addEventListener("abort", followSignals(connection, signals), { once: true });
  const wanted = { path: "turns.execute", input };
  const rest = readConnection(transport, wanted, connection.signal);
  try {
    for (;;) {
      const first = await rest.next();
      if (first.done === true) break;
      // While its engine boots the server is alive, and the turn has not begun.
      if (first.value !== "alive") return { first: first.value, rest, connection };
    }
    throw new EnginehouseError("CONNECTION_LOST", "the stream stopped before the turn began");
  } catch (error) {
    connection.abort();
    throw error;
  }
}

/** What an opened turn brings from now on, until the signal aborts or its reader leaves. */
export async function* readOpenedTurn(
  { first, rest, connection }: OpenedTurn,
  signal: AbortSignal,
): AsyncGenerator<SequencedItem | "alive", void> {
  const unfollow = followSignals(connection, [signal]);
  try {
    signal.throwIfAborted();
    yield first;
    yield* rest;
  } finally {
    unfollow();
    connection.abort();
    await rest.return();
  }
}

/**
 * What comes over one connection, from the place on; "alive" when it is only that. Returns when the stream stops, for
 * whatever reason; throws the server's refusal, or CONNECTION_LOST.
 *
 * On the wire, as tRPC writes server-sent events:
 *
 *     event: connected         data: { reconnectAfterInactivityMs }
 *     (no event) id: lastSeq   data: a TurnItem
 *     event: ping              so that silence means a dead connection
 *     event: serialized-error  data: { message, data }
 *     event: return            the procedure ended by itself
 */
export function readTurnConnection(
  transport: Transport,
  { turnId, afterSeq }: TurnPlace,
  signal: AbortSignal,
): AsyncGenerator<SequencedItem | "alive", void> {
  const input = { turnId, ...(afterSeq > 0 && { lastEventId: String(afterSeq) }) };
  return readConnection(transport, { path: "turns.events", input }, signal);
}

interface WantedStream {
  path: string;
  input: object;
}

async function* readConnection(
  transport: Transport,
  wanted: WantedStream,
  signal: AbortSignal,
): AsyncGenerator<SequencedItem | "alive", void> {
  signal.throwIfAborted();
  const connection = new AbortController();
  const unfollow = followSignals(connection, [signal]);
  const silence = {
    silenceMs: DEFAULT_SILENCE_MS,
    onSilence: () => connection.abort(new EnginehouseError("CONNECTION_LOST", "the server fell silent")),
  };
  const connecting = setTimeout(silence.onSilence, silence.silenceMs);
  try {
    const body = await openBody(transport, wanted, connection.signal);
    clearTimeout(connecting);
    for await (const message of readSse(body, silence)) {
      if (message.event === "connected") silence.silenceMs = toSilenceMs(message);
      else if (message.event === "serialized-error") throw fromErrorShape(toErrorShape(message));
      else if (message.event === "return") return;
      else if (message.event === "ping") yield "alive";
      else if (message.event === undefined) yield toItem(message);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw toEnginehouseError(error);
  } finally {
    clearTimeout(connecting);
    unfollow();
    connection.abort();
  }
}

async function openBody(
  transport: Transport,
  { path, input }: WantedStream,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  const response = await transport.sendOnce({
    path,
    body: JSON.stringify(input),
    headers: { accept: "text/event-stream" },
    signal,
    isStream: true,
  });
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream") === true;
  if (response.ok && isStream && response.body !== null) return response.body;
  throw toRefusal(await response.text(), response.status);
}

function toRefusal(text: string, status: number): EnginehouseError {
  const { error } = parseJson(text) as { error?: Partial<ErrorShape> };
  if (error?.data !== undefined) return fromErrorShape({ message: error.message ?? "", data: error.data });
  return new EnginehouseError("CONNECTION_LOST", `what answered (${status}) is not a stream of events`);
}

interface ErrorShape {
  message: string;
  data: ErrorData;
}

function toErrorShape(message: EventSourceMessage): ErrorShape {
  return parseJson(message.data) as ErrorShape;
}

function toItem(message: EventSourceMessage): SequencedItem {
  const lastSeq = Number(message.id);
  const item = parseJson(message.data) as TurnItem;
  if (Number.isSafeInteger(lastSeq) && Array.isArray(item.events)) return { lastSeq, item };
  throw new EnginehouseError("CONNECTION_LOST", "what came is not a part of a turn");
}

function toSilenceMs(message: EventSourceMessage): number {
  const { reconnectAfterInactivityMs } = parseJson(message.data) as { reconnectAfterInactivityMs?: number };
  return reconnectAfterInactivityMs ?? DEFAULT_SILENCE_MS;
}

function parseJson(text: string): object {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : {};
  } catch (error) {
    throw new EnginehouseError("CONNECTION_LOST", "what came is not JSON", { cause: error });
  }
}
