import { cutEventData } from "./cut-event-data.ts";
import { EnginehouseError, findReason } from "./enginehouse-error.ts";
import { toErrorResponse, toPublicCode, toPublicEnd, toPublicError } from "./public-error.ts";
import type { SequencedBatch } from "./turn-connection.ts";
import type { TurnGap } from "./turn-event.ts";
import type { ReadableTurn, Turn } from "./turn.ts";

export interface EventStreamOptions {
  /**
   * The browser's header `Last-Event-ID`. The stream begins after it. A turn that has not begun to start then is not
   * started: a browser with a cursor has seen it start.
   */
  lastEventId?: string | readonly string[] | null | undefined;
  /** Aborts when the browser leaves, also before the turn has started. The reading stops, and the turn goes on. */
  signal?: AbortSignal | undefined;
  /** Passes the engine's own errors on, with their messages and details. Default: only their codes. */
  showEngineErrors?: boolean | undefined;
}

/** An EventSource fires events of its own under these names. */
const NAMES_OF_EVENT_SOURCE: readonly string[] = ["error", "open"];
/** With this before its name, an event of the engine cannot be taken for one of ours or of EventSource. */
const ENGINE_PREFIX = "engine.";
/** What a reader may take for our own prefix: it may trim the type, fold its case, or not see its first characters. */
const LIKE_OURS = /^[^a-z]*enginehouse\./i;
const CONTROL = /\p{Cc}/gu;

const HEADERS = {
  "content-type": "text/event-stream",
  // Proxies and middlewares must neither keep, compress nor buffer the events.
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};
/** Sent at once, so that the browser knows that the stream is open. Browsers otherwise reconnect after 3 s. */
const OPENING = "retry: 1000\n\n";
const COMMENT = ":\n\n";
const COMMENT_AFTER_MS = 15_000;
/** Nobody reads this answer: the browser has left. The number is the one that nginx logs. */
const LEFT_STATUS = 499;

/**
 * Answers a browser's EventSource with a turn, from the cursor on:
 *
 *     id: 7                      the sequence number; the browser's cursor
 *     event: text_delta          the engine's type; `engine.error` for `error`, see the package's README
 *     data: {"text":"Hello"}     as the engine wrote it
 *
 *     event: enginehouse.gap     data: { fromSeq, toSeq, reason }: events that cannot be read any more
 *     event: enginehouse.end     data: the turn's end, the last event
 *     event: enginehouse.error   data: a PublicError. The stream stops without an end, and the browser reconnects
 *
 * Resolves when the turn has started. A turn that is refused is an answer with the refusal's status and the body
 * `{ error: PublicError }`. A browser that has the end gets 204, and stays away. Each event is read from the service when
 * the browser takes it, so a slow browser costs a cursor and one batch.
 */
export async function toEventStream(turn: Turn, options: EventStreamOptions = {}): Promise<Response> {
  const readable = requireReadable(turn);
  const { signal } = options;
  try {
    signal?.throwIfAborted();
    const after = parseCursor(options.lastEventId);
    const end = await readable.begin(after, signal);
    const headers = new Headers({ ...HEADERS, "x-turn-id": turn.turnId });
    if (end !== null && turn.cursor >= end.lastSeq) return new Response(null, { status: 204, headers });
    return new Response(toBody(readable, options), { headers });
  } catch (error) {
    readable.leave();
    if (signal?.aborted === true) return new Response(null, { status: LEFT_STATUS });
    if (findReason(error) === undefined) throw error;
    return toErrorResponse(error);
  }
}

function requireReadable(turn: Turn): ReadableTurn {
  // Not `instanceof`: a bundler may have loaded this package twice.
  if (typeof (turn as Partial<ReadableTurn>).begin === "function") return turn as ReadableTurn;
  throw new TypeError("this is no turn of the client: pass what `execute` or `follow` returned");
}

/** undefined: the browser has no cursor. */
function parseCursor(lastEventId: EventStreamOptions["lastEventId"]): number | undefined {
  if (lastEventId === undefined || lastEventId === null || lastEventId === "") return undefined;
  if (typeof lastEventId === "string" && /^[0-9]{1,15}$/.test(lastEventId)) return Number(lastEventId);
  throw new EnginehouseError("INVALID_INPUT", "the header Last-Event-ID has no sequence number");
}

/** The stream takes a chunk only when its reader asks for one. */
function toBody(turn: ReadableTurn, options: EventStreamOptions): ReadableStream<Uint8Array> {
  const reading = new AbortController();
  let isCancelled = false;
  const stop = () => reading.abort();
  options.signal?.addEventListener("abort", stop, { once: true });
  const chunks = toChunks(turn, reading, options);
  const encoder = new TextEncoder();
  const comment = encoder.encode(COMMENT);
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        // A reader that has not taken the last comment needs no other one.
        const sendComment = () => controller.desiredSize === 0 && controller.enqueue(comment);
        const silence = setInterval(sendComment, COMMENT_AFTER_MS);
        try {
          const { done, value } = await chunks.next();
          if (!done) return controller.enqueue(encoder.encode(value));
          options.signal?.removeEventListener("abort", stop);
          if (!isCancelled) controller.close();
        } finally {
          clearInterval(silence);
        }
      },
      cancel: async () => {
        isCancelled = true;
        options.signal?.removeEventListener("abort", stop);
        reading.abort();
        turn.leave();
        await chunks.return();
      },
    },
    { highWaterMark: 0 },
  );
}

async function* toChunks(
  turn: ReadableTurn,
  reading: AbortController,
  options: EventStreamOptions,
): AsyncGenerator<string, void> {
  yield OPENING;
  try {
    for await (const received of turn.batches(reading)) yield encodeBatch(received, options);
  } catch (error) {
    // The browser has left, so nobody reads the rest.
    if (reading.signal.aborted) return;
    if (findReason(error) === undefined) throw error;
    yield `event: enginehouse.error\ndata: ${JSON.stringify(toPublicError(error))}\n\n`;
  }
}

function encodeBatch({ lastSeq, text, batch }: SequencedBatch, options: EventStreamOptions): string {
  const { events, gap, end } = batch;
  const shows = options.showEngineErrors === true;
  let encoded = gap ? toMessage(toCursor(gap), "enginehouse.gap", JSON.stringify(gap)) : "";
  // The batch's text may begin with events that the reader has.
  const texts = events.length === 0 ? [] : cutEventData(text).slice(-events.length);
  for (const [index, { seq, type, data }] of events.entries()) {
    const isHidden = type === "error" && !shows;
    encoded += toMessage(seq, toBrowserType(type), isHidden ? toHiddenError(data) : (texts[index] ?? ""));
  }
  if (!end) return encoded;
  return encoded + toMessage(lastSeq, "enginehouse.end", JSON.stringify(shows ? end : toPublicEnd(end)));
}

/** After `unknown_cursor`, the reader reads on from the turn's newest event, and not from the end of the gap. */
function toCursor(gap: TurnGap): number {
  return gap.reason === "unknown_cursor" ? gap.fromSeq - 1 : gap.toSeq;
}

/** The service's JSON is on one line. An engine must not be able to add lines, so this does not rely on it. */
function toMessage(seq: number, type: string, data: string): string {
  return `id: ${seq}\nevent: ${type}\ndata: ${toLine(data)}\n\n`;
}

function toLine(text: string): string {
  return /[\r\n]/.test(text) ? text.replaceAll(/[\r\n]+/g, " ") : text;
}

function toBrowserType(type: string): string {
  const isTaken =
    NAMES_OF_EVENT_SOURCE.includes(type) || type.startsWith(ENGINE_PREFIX) || LIKE_OURS.test(type);
  return (isTaken ? ENGINE_PREFIX : "") + type.replaceAll(CONTROL, "\ufffd");
}

function toHiddenError(data: unknown): string {
  const code = typeof data === "object" && data !== null && "error" in data ? data.error : undefined;
  return JSON.stringify({ error: toPublicCode(code) });
}
