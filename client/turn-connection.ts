import type { EventSourceMessage } from "eventsource-parser";
import {
  EnginehouseError,
  fromErrorShape,
  toEnginehouseError,
  type ErrorShape,
} from "./enginehouse-error.ts";
import { readSse } from "./read-sse.ts";
import type { Transport } from "./transport.ts";
import type { TurnBatch } from "./turn-event.ts";

/** Used until the server has sent its own limit, and if it sends none. */
const DEFAULT_SILENCE_MS = 30_000;

export interface TurnKey {
  turnId: string;
  /** Operators name the product. */
  product?: string;
}

export interface TurnCursor {
  key: TurnKey;
  /** The last sequence number that the reader has; 0 before the first event. */
  afterSeq: number;
}

export interface SequencedBatch {
  /** The sequence number of the last event, gap or end in the batch. */
  lastSeq: number;
  batch: TurnBatch;
  /** The JSON text that the batch was parsed from. It may begin with events that the batch lacks. */
  text: string;
}

/** The connection that has started a turn. Its reader gets the turn from the first event. */
export interface OpenedTurn {
  first: SequencedBatch;
  rest: AsyncGenerator<SequencedBatch | "alive", void>;
  connection: AbortController;
}

/**
 * Starts the turn, or joins it if it has started, and then returns. Makes one attempt. Throws the refusal, or
 * CONNECTION_LOST when it is unknown whether the turn has started.
 */
export async function executeTurn(
  transport: Transport,
  input: object,
  signals: readonly (AbortSignal | undefined)[],
): Promise<OpenedTurn> {
  const connection = new AbortController();
  // The signals also apply while the connection has no reader. Its reader, or `#dropUnread`, aborts it in the end.
  const unfollow = transport.signals.follow(connection, signals);
  connection.signal.addEventListener("abort", unfollow, { once: true });
  const rest = readConnection(transport, { path: "turns.execute", input }, connection.signal);
  try {
    for (;;) {
      const first = await rest.next();
      if (first.done === true) break;
      // "alive" comes while the engine boots: the turn has not started.
      if (first.value !== "alive") return { first: first.value, rest, connection };
    }
    throw new EnginehouseError("CONNECTION_LOST", "the stream stopped before the turn started");
  } catch (error) {
    connection.abort();
    throw error;
  }
}

/** Reads an opened turn until its stream stops, the signal aborts or the reader leaves. Closes the connection. */
export async function* readOpenedTurn(
  transport: Transport,
  { first, rest, connection }: OpenedTurn,
  signal: AbortSignal,
): AsyncGenerator<SequencedBatch | "alive", void> {
  const unfollow = transport.signals.follow(connection, [signal]);
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
 * Reads a turn over one connection, from the cursor on. "alive" stands for a ping. Returns when the stream stops, with
 * or without the turn's end. Throws the server's refusal, or CONNECTION_LOST.
 *
 * tRPC's server-sent events:
 *
 *     event: connected         data: { reconnectAfterInactivityMs }
 *     (no event) id: lastSeq   data: a TurnBatch
 *     event: ping              without pings, silence means a dead connection
 *     event: serialized-error  data: { message, data }
 *     event: return            the procedure has returned
 */
export function readTurnConnection(
  transport: Transport,
  { key, afterSeq }: TurnCursor,
  signal: AbortSignal,
): AsyncGenerator<SequencedBatch | "alive", void> {
  const input = { ...key, ...(afterSeq > 0 && { lastEventId: String(afterSeq) }) };
  return readConnection(transport, { path: "turns.events", input }, signal);
}

interface StreamCall {
  path: string;
  input: object;
}

async function* readConnection(
  transport: Transport,
  call: StreamCall,
  signal: AbortSignal,
): AsyncGenerator<SequencedBatch | "alive", void> {
  signal.throwIfAborted();
  const connection = new AbortController();
  const unfollow = transport.signals.follow(connection, [signal]);
  const silence = {
    silenceMs: DEFAULT_SILENCE_MS,
    onSilence: () =>
      connection.abort(new EnginehouseError("CONNECTION_LOST", "the server sent nothing for too long")),
  };
  const connecting = setTimeout(silence.onSilence, silence.silenceMs);
  try {
    const body = await openBody(transport, call, connection.signal);
    clearTimeout(connecting);
    for await (const message of readSse(body, silence)) {
      if (message.event === "connected") silence.silenceMs = toSilenceMs(message);
      else if (message.event === "serialized-error")
        throw fromErrorShape(parseJson(message.data) as ErrorShape);
      else if (message.event === "return") return;
      else if (message.event === "ping") yield "alive";
      else if (message.event === undefined) yield toBatch(message);
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
  { path, input }: StreamCall,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  const { body, reply } = await transport.sendOnce({
    path,
    body: JSON.stringify(input),
    headers: { accept: "text/event-stream" },
    signal,
    isStream: true,
  });
  if (reply !== undefined && "error" in reply) throw fromErrorShape(reply.error);
  if (body !== null) return body;
  throw new EnginehouseError("CONNECTION_LOST", "the answer has no body");
}

function toBatch(message: EventSourceMessage): SequencedBatch {
  const lastSeq = Number(message.id);
  const batch = parseJson(message.data) as TurnBatch;
  if (Number.isSafeInteger(lastSeq) && Array.isArray(batch.events))
    return { lastSeq, batch, text: message.data };
  throw new EnginehouseError("CONNECTION_LOST", "a message of the stream is not a batch of a turn");
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
    throw new EnginehouseError("CONNECTION_LOST", "a message of the server is not JSON", { cause: error });
  }
}
