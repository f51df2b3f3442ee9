import type { LogChunk } from "../../../db/turn-events.ts";
import { toBatches } from "./log-batches.ts";
import { BATCH_MAX_BYTES, BATCH_MAX_EVENTS, type TurnEvent } from "../read/turn-batch.ts";

const WINDOW_MAX_EVENTS = 4096;
const WINDOW_MAX_BYTES = 1024 * 1024;
/** Text of an event in the log besides its type and its data: names, instant, sequence number. */
const LINE_CHARS = 72;

export interface AppendedEvent extends Pick<TurnEvent, "at" | "type"> {
  json: string;
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
  /** Of the oldest event in the window; one past the last event when the window is empty. */
  get firstSeq(): number {
    return this.#written[0]?.firstSeq ?? this.#writtenSeq + 1;
  }

  /** `json` is the event's data as JSON text on one line. */
  append({ at, type, json }: AppendedEvent): void {
    // Mostly many events of one type follow each other.
    if (type !== this.#type) this.#typeJson = JSON.stringify((this.#type = type));
    const size = LINE_CHARS + type.length + json.length;
    this.#events.push(`{"seq":${this.lastSeq + 1},"at":"${at}","type":${this.#typeJson},"data":${json}}`);
    this.#sizes.push(size);
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
  toChunks(): LogChunk[] {
    const chunks: LogChunk[] = [];
    const before = this.#writtenSeq;
    let from = 0;
    while (from < this.#events.length) {
      const until = this.#untilFull(from, this.#events.length);
      chunks.push({
        firstSeq: before + from + 1,
        lastSeq: before + until,
        // Joined into one string, because slices would keep the engine's whole chunks in memory.
        events: ["[", this.#events.slice(from, until).join(","), "]"].join(""),
      });
      from = until;
    }
    return chunks;
  }

  /** The log has these chunks: the oldest events that were not written. */
  markWritten(chunks: readonly LogChunk[]): void {
    for (const chunk of chunks) {
      const count = chunk.lastSeq - this.#writtenSeq;
      this.#events.splice(0, count);
      for (const size of this.#sizes.splice(0, count)) this.#unwrittenBytes -= size;
      this.#written.push(chunk);
      this.#writtenBytes += chunk.events.length;
      this.#writtenSeq = chunk.lastSeq;
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
