import type { LogChunk } from "../../../db/log-chunk.ts";
import type { AppendedChunk } from "../../../db/turn-events.ts";
import { isLaterEventId } from "../../engine-contract/event-id.ts";
import { toBatches } from "./log-batches.ts";
import { BATCH_MAX_BYTES, BATCH_MAX_EVENTS, type TurnEvent } from "../read/turn-batch.ts";

const WINDOW_MAX_EVENTS = 4096;
const WINDOW_MAX_BYTES = 1024 * 1024;
/** Text of an event in the log besides its type and its data: names, instant, sequence number. */
const LINE_CHARS = 72;

export interface AppendedEvent extends Pick<TurnEvent, "at" | "type"> {
  json: string;
  /** The engine's id of the event, whatever text that is. */
  id?: string | undefined;
}

/**
 * The newest events of one turn: at most 4096 events and 1 MiB, but always all that are not written yet. The caller of
 * `append` has to limit `unwrittenBytes`.
 *
 * Events are kept as text, which readers and the log get unchanged. Events that are not written have a text each, for
 * the readers at the head. Written events have only the chunks that the log has. The reason: many long-lived objects
 * cost the garbage collector more than all other work of a turn, and few readers are that far behind.
 */
export class TurnWindow {
  #written: LogChunk[] = [];
  #writtenBytes = 0;
  #writtenSeq = 0;
  // Parallel arrays: no further object for each of many small events.
  #events: string[] = [];
  #sizes: number[] = [];
  #ids: (string | undefined)[] = [];
  /** The engine's id of the last written event; undefined if it has none that grew. */
  #writtenId: string | undefined;
  /** The same of the last written event that has one; "" if none has. */
  #newestId = "";
  #unwrittenBytes = 0;
  #totalBytes = 0;
  #type = "";
  #typeJson = '""';

  get lastSeq(): number {
    return this.#writtenSeq + this.#events.length;
  }
  get writtenSeq(): number {
    return this.#writtenSeq;
  }
  get unwrittenBytes(): number {
    return this.#unwrittenBytes;
  }
  /** Of all events, dropped ones too. */
  get totalBytes(): number {
    return this.#totalBytes;
  }
  /** The engine's id of the last event, whatever text that is; undefined if it has none. */
  get lastId(): string | undefined {
    return this.#events.length > 0 ? this.#ids.at(-1) : this.#writtenId;
  }
  /** Of the oldest event in the window; one past the last event when the window is empty. */
  get firstSeq(): number {
    return this.#written[0]?.firstSeq ?? this.#writtenSeq + 1;
  }

  /** The log has the events up to `lastSeq`, from an earlier owner. Call this before the first `append`. */
  startAfter(lastSeq: number): void {
    this.#writtenSeq = lastSeq;
  }

  /** What the log had by then: the engine's id of its last event, and its size. */
  resume({ engineEventId, bytes }: { engineEventId: string | null; bytes: number }): void {
    this.#newestId = engineEventId ?? "";
    this.#writtenId = engineEventId ?? undefined;
    this.#totalBytes += bytes;
  }

  /** `json` is the event's data as JSON text on one line. */
  append({ at, type, json, id }: AppendedEvent): void {
    // Mostly many events of one type follow each other.
    if (type !== this.#type) this.#typeJson = JSON.stringify((this.#type = type));
    const size = LINE_CHARS + type.length + json.length;
    this.#events.push(`{"seq":${this.lastSeq + 1},"at":"${at}","type":${this.#typeJson},"data":${json}}`);
    this.#sizes.push(size);
    this.#ids.push(id);
    this.#unwrittenBytes += size;
    this.#totalBytes += size;
  }

  /** One batch of the events after `cursor`, up to `lastSeq`. The window must have the first of them. */
  after(cursor: number, lastSeq: number): string[] {
    if (cursor < this.#writtenSeq) return this.#afterWritten(cursor);
    const from = cursor - this.#writtenSeq;
    return this.#events.slice(from, this.#untilFull(from, lastSeq - this.#writtenSeq));
  }

  /** All events that are not written. The same events give the same chunks, so a repeated commit replaces its rows. */
  toChunks(): AppendedChunk[] {
    const chunks: AppendedChunk[] = [];
    const before = this.#writtenSeq;
    let lastId = this.#newestId;
    let from = 0;
    while (from < this.#events.length) {
      const until = this.#untilFull(from, this.#events.length);
      const id = this.#ids[until - 1];
      // An id that does not grow names no event.
      const isUsable = isLaterEventId(id, lastId);
      if (isUsable) lastId = copyText(id);
      chunks.push({
        firstSeq: before + from + 1,
        lastSeq: before + until,
        // Joined into one string, because slices would keep the engine's whole chunks in memory.
        events: ["[", this.#events.slice(from, until).join(","), "]"].join(""),
        engineEventId: isUsable ? lastId : null,
      });
      from = until;
    }
    return chunks;
  }

  /** The log has these chunks: the oldest events that were not written. */
  markWritten(chunks: readonly AppendedChunk[]): void {
    for (const chunk of chunks) {
      const count = chunk.lastSeq - this.#writtenSeq;
      this.#events.splice(0, count);
      this.#ids.splice(0, count);
      for (const size of this.#sizes.splice(0, count)) this.#unwrittenBytes -= size;
      this.#written.push(chunk);
      this.#writtenBytes += chunk.events.length;
      this.#writtenSeq = chunk.lastSeq;
      this.#writtenId = chunk.engineEventId ?? undefined;
      this.#newestId = chunk.engineEventId ?? this.#newestId;
    }
    this.#trim();
  }

  #afterWritten(cursor: number): string[] {
    // Search from the end: few readers are far behind.
    const first = this.#written.findLastIndex(({ firstSeq }) => firstSeq <= cursor + 1);
    let until = first;
    let bytes = 0;
    for (const { lastSeq, events } of this.#written.slice(first)) {
      bytes += events.length;
      if (until > first && (lastSeq - cursor > BATCH_MAX_EVENTS || bytes > BATCH_MAX_BYTES)) break;
      until += 1;
    }
    return toBatches(this.#written.slice(first, until), cursor).flatMap(({ events }) => events);
  }

  #untilFull(from: number, end: number): number {
    const max = Math.min(end, from + BATCH_MAX_EVENTS);
    let bytes = 0;
    for (let index = from; index < max; index += 1) {
      bytes += this.#sizes[index] ?? 0;
      if (bytes > BATCH_MAX_BYTES && index > from) return index;
    }
    return max;
  }

  #trim(): void {
    for (;;) {
      const [oldest] = this.#written;
      const count = this.lastSeq + 1 - this.firstSeq;
      const bytes = this.#writtenBytes + this.#unwrittenBytes;
      if (oldest === undefined || (count <= WINDOW_MAX_EVENTS && bytes <= WINDOW_MAX_BYTES)) return;
      this.#writtenBytes -= oldest.events.length;
      this.#written.shift();
    }
  }
}

/** The same text with bytes of its own: a part of an engine's chunk would keep the whole chunk in memory. */
function copyText(text: string): string {
  return Buffer.from(text, "latin1").toString("latin1");
}
