import type { LogChunk } from "../../db/turn-events.ts";
import { BATCH_MAX_BYTES, BATCH_MAX_EVENTS, type TurnEvent } from "./turn-batch.ts";

const WINDOW_MAX_EVENTS = 4096;
const WINDOW_MAX_BYTES = 1024 * 1024;

/**
 * The newest events of one turn: those that readers at the head want, and all that are not written yet. What is
 * written is dropped beyond a bound; what is not stays, and whoever appends has to mind `unwrittenBytes`.
 */
export class TurnWindow {
  // Parallel arrays: there are many small events, and no object for each but the event itself.
  #events: TurnEvent[] = [];
  #sizes: number[] = [];
  #lines: string[] = [];
  #bytes = 0;
  #lastSeq = 0;
  #writtenSeq = 0;
  #unwrittenBytes = 0;
  // Runs of one type are the rule.
  #lastType: string | undefined;
  #lastTypeJson = "";

  get lastSeq(): number {
    return this.#lastSeq;
  }
  get writtenSeq(): number {
    return this.#writtenSeq;
  }
  get unwrittenBytes(): number {
    return this.#unwrittenBytes;
  }
  /** Of the oldest event that is still here; one past the last when there is none. */
  get firstSeq(): number {
    return this.#lastSeq - this.#events.length + 1;
  }

  /** `json` is the event's data as text that parses. */
  append(event: Omit<TurnEvent, "seq">, json: string): void {
    const { at, type, data } = event;
    const seq = (this.#lastSeq += 1);
    if (type !== this.#lastType) {
      this.#lastType = type;
      this.#lastTypeJson = JSON.stringify(type);
    }
    const line = `{"seq":${seq},"at":"${at}","type":${this.#lastTypeJson},"data":${json}}`;
    this.#events.push({ seq, at, type, data });
    this.#lines.push(line);
    this.#sizes.push(line.length);
    this.#bytes += line.length;
    this.#unwrittenBytes += line.length;
  }

  /** One batch of what comes after `cursor`, which is not older than the window, up to `lastSeq`. */
  after(cursor: number, lastSeq: number): TurnEvent[] {
    const from = cursor + 1 - this.firstSeq;
    return this.#events.slice(from, this.#untilFull(from, lastSeq + 1 - this.firstSeq));
  }

  /** All that is not written. The same events give the same chunks, so a commit that is repeated replaces its rows. */
  toChunks(): LogChunk[] {
    const chunks: LogChunk[] = [];
    const first = this.firstSeq;
    let from = this.#writtenSeq + 1 - first;
    while (from < this.#events.length) {
      const until = this.#untilFull(from, this.#events.length);
      const events = `[${this.#lines.slice(from, until).join(",")}]`;
      chunks.push({ firstSeq: first + from, lastSeq: first + until - 1, events });
      from = until;
    }
    return chunks;
  }

  markWritten(seq: number): void {
    const first = this.firstSeq;
    for (let index = this.#writtenSeq + 1 - first; index <= seq - first; index += 1) {
      this.#lines[index] = "";
      this.#unwrittenBytes -= this.#sizes[index] ?? 0;
    }
    this.#writtenSeq = seq;
    this.#trim();
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
    const written = this.#writtenSeq + 1 - this.firstSeq;
    let count = 0;
    while (
      count < written &&
      (this.#events.length - count > WINDOW_MAX_EVENTS || this.#bytes > WINDOW_MAX_BYTES)
    ) {
      this.#bytes -= this.#sizes[count] ?? 0;
      count += 1;
    }
    if (count === 0) return;
    this.#events.splice(0, count);
    this.#sizes.splice(0, count);
    this.#lines.splice(0, count);
  }
}
