import type { LogChunk } from "../../../db/turn-events.ts";
import type { TurnStatus } from "../../../db/turns.ts";
import type { ReaderWake } from "../read/reader-wake.ts";
import type { TurnBatch, TurnEvent } from "../read/turn-batch.ts";
import type { EndCause, TurnEnd } from "./turn-end.ts";
import { TurnWindow } from "../log/turn-window.ts";

/** How far ahead of the last event each commit reserves, at least. */
export const RESERVE_AHEAD = 1024;
/** That a turn streams is written with the next commit after this, and not in the way of its first event. */
const STATUS_AGE_MS = 10;
/** From this much on a turn is written without waiting for its age. */
const FLUSH_BYTES = 16 * 1024;

export interface LiveTurnInput {
  productId: string;
  turnId: string;
  userId: string;
  taskId: string;
  fingerprint: string;
  /** Unique to this attempt at the turn: what an older or a newer owner writes does not match. */
  fencingToken: number;
}

/** What is known once the row is written. */
export interface TurnRecord {
  engineId: string;
  generation: number;
  /** As Postgres writes it: the key of the log's partition. */
  startedAt: string;
}

/** What one commit takes from a turn. */
export interface Flush {
  turn: LiveTurn;
  chunks: LogChunk[];
  /** Of the last event in it. */
  eventSeq: number;
  /** Of the last item, which is the end once there is one. */
  lastSeq: number;
  reservedSeq: number;
  bytes: number;
  status: TurnStatus;
  end: TurnEnd | undefined;
}

/** `log`: what the cursor asks for is in the log and not, or no longer, in memory. */
export type ReadStep = { kind: "batch"; batch: TurnBatch } | { kind: "wait" | "log" | "unknown_cursor" };

/**
 * A turn that this process owns.
 *
 *   engine ─▶ append ─▶ written │ not written yet ─▶ takeFlush ─▶ log ─▶ markWritten
 *                            └─ readers: up to what is reserved, written or not
 *
 * An event may be shown before it is written, because an owner that dies leaves an end past `reservedSeq`. The end
 * itself is shown once it is written.
 */
export class LiveTurn {
  readonly productId: string;
  readonly turnId: string;
  readonly userId: string;
  readonly taskId: string;
  readonly fingerprint: string;
  readonly fencingToken: number;
  readonly #isNew = Promise.withResolvers<void>();
  readonly #started = Promise.withResolvers<void>();
  readonly #recorded = Promise.withResolvers<TurnRecord>();
  readonly #settled = Promise.withResolvers<void>();
  readonly #stop = new AbortController();
  readonly #window = new TurnWindow();
  readonly #readers = new Set<ReaderWake>();
  #onRoom: (() => void) | undefined;

  #record: TurnRecord | undefined;
  #stopCause: EndCause | undefined;
  #end: TurnEnd | undefined;
  #status: "starting" | "streaming" = "starting";
  #isStatusWritten = true;
  #isAnswered = false;
  #isSettled = false;
  #isLost = false;
  #reservedSeq = RESERVE_AHEAD;
  #statusDueAt = 0;
  #oldestUnwrittenAt = 0;
  #bytes = 0;

  constructor(input: LiveTurnInput) {
    this.productId = input.productId;
    this.turnId = input.turnId;
    this.userId = input.userId;
    this.taskId = input.taskId;
    this.fingerprint = input.fingerprint;
    this.fencingToken = input.fencingToken;
    // Each may be rejected while nobody waits for it; who comes later still sees it.
    this.#isNew.promise.catch(() => {});
    this.#started.promise.catch(() => {});
    this.#recorded.promise.catch(() => {});
  }

  get record(): TurnRecord | undefined {
    return this.#record;
  }
  get status(): TurnStatus {
    return this.#isSettled && this.#end ? this.#end.status : this.#status;
  }
  /** Of the last item that readers may have. */
  get lastSeq(): number {
    return this.#isSettled && this.#end ? this.#end.lastSeq : this.#visibleSeq;
  }
  /** Received from the engine so far. */
  get bytes(): number {
    return this.#bytes;
  }
  /** What came, or what the log makes of it where that is more: events of a few bytes are lines of a hundred there. */
  get size(): number {
    return Math.max(this.#bytes, this.#window.totalBytes);
  }
  get unwrittenBytes(): number {
    return this.#window.unwrittenBytes;
  }
  get hasEnd(): boolean {
    return this.#end !== undefined;
  }
  get isSettled(): boolean {
    return this.#isSettled;
  }
  /** True once the log has told that the turn is not ours any more: from then on the log alone is right. */
  get isLost(): boolean {
    return this.#isLost;
  }
  /** True once the caller of start has been told something. */
  get isAnswered(): boolean {
    return this.#isAnswered;
  }
  /** Aborts when the turn is to end before its engine ends it. */
  get stopSignal(): AbortSignal {
    return this.#stop.signal;
  }
  get stopCause(): EndCause | undefined {
    return this.#stopCause;
  }

  /** Settles once the database knew of no turn of this id; rejects when it did, or could not be asked. */
  async untilNew(): Promise<void> {
    await this.#isNew.promise;
  }
  /** Settles once the caller of start can be answered; rejects with the refusal. */
  async untilStarted(): Promise<void> {
    await this.#started.promise;
  }
  /** Settles once the row is written; rejects when it never will be. */
  async untilRecorded(): Promise<TurnRecord> {
    return this.#recorded.promise;
  }
  /** Settles once the end is written, or the turn turns out to be somebody else's. */
  async untilSettled(): Promise<void> {
    await this.#settled.promise;
  }

  markNew(): void {
    this.#isNew.resolve();
  }

  markRecorded(record: TurnRecord): void {
    this.#record = record;
    this.#recorded.resolve(record);
  }

  markStreaming(nowMs: number): void {
    this.#status = "streaming";
    this.#statusDueAt = nowMs + STATUS_AGE_MS;
    this.#isStatusWritten = false;
  }

  /** Tells the caller of start how things stand now; only the first answer counts. */
  answer(): void {
    this.#isAnswered = true;
    this.#started.resolve();
  }

  /** The turn did not begin: callers of start get the error, and there is nothing to read. */
  refuse(error: unknown): void {
    this.#isAnswered = true;
    this.#isSettled = true;
    this.#isLost = true;
    this.#isNew.reject(error);
    this.#started.reject(error);
    this.#recorded.reject(error);
    this.#settled.resolve();
    this.announce();
  }

  /** The turn is recorded, and its end too; only the caller of start gets this instead. */
  failStart(error: unknown): void {
    this.#isAnswered = true;
    this.#started.reject(error);
  }

  /** Asks whoever drives the turn to end it so; the first cause counts. */
  stop(cause: EndCause): void {
    if (this.#stopCause !== undefined || this.#end !== undefined) return;
    this.#stopCause = cause;
    this.#stop.abort();
  }

  /** Readers hear of it with the next `announce`. `json` is the event's data as text that parses. */
  append(event: Omit<TurnEvent, "seq">, json: string, nowMs: number): void {
    if (this.#window.unwrittenBytes === 0) this.#oldestUnwrittenAt = nowMs;
    this.#window.append(event, json);
  }

  addBytes(count: number): void {
    this.#bytes += count;
  }

  /** Decides how the turn ends; the first decision counts, and is shown once it is written. */
  finish(cause: EndCause): void {
    this.#end ??= { ...cause, lastSeq: this.#window.lastSeq + 1 };
  }

  get isDirty(): boolean {
    if (this.#isSettled) return false;
    return this.#window.unwrittenBytes > 0 || !this.#isStatusWritten || this.#end !== undefined;
  }

  /** When the turn should be written: at once when somebody waits for it, or there is much of it. */
  dueAt(maxAgeMs: number): number {
    const isUrgent =
      this.#end !== undefined ||
      this.#window.unwrittenBytes >= FLUSH_BYTES ||
      this.#window.lastSeq >= this.#reservedSeq;
    if (isUrgent) return 0;
    const eventsDueAt = this.#window.unwrittenBytes > 0 ? this.#oldestUnwrittenAt + maxAgeMs : Infinity;
    return this.#isStatusWritten ? eventsDueAt : Math.min(this.#statusDueAt, eventsDueAt);
  }

  takeFlush(): Flush {
    const eventSeq = this.#window.lastSeq;
    const lastSeq = this.#end?.lastSeq ?? eventSeq;
    const burst = eventSeq - this.#window.writtenSeq;
    return {
      turn: this,
      chunks: this.#window.toChunks(),
      eventSeq,
      lastSeq,
      reservedSeq: Math.max(this.#reservedSeq, lastSeq + RESERVE_AHEAD + 4 * burst),
      bytes: this.#bytes,
      status: this.#end?.status ?? this.#status,
      end: this.#end,
    };
  }

  /** The log has it. Until this is called the same events are taken again. */
  markWritten(flush: Flush, nowMs: number): void {
    this.#window.markWritten(flush.chunks);
    this.#reservedSeq = flush.reservedSeq;
    this.#oldestUnwrittenAt = nowMs;
    this.#isStatusWritten = this.#status === "starting" || flush.status !== "starting";
    if (flush.end !== undefined) this.#settle();
    this.#wakeAll();
  }

  /** Somebody else has ended the turn: stop quietly, nothing of ours can be written any more. */
  markLost(): void {
    this.#isLost = true;
    this.#settle();
    this.#stop.abort();
    this.#started.resolve();
    this.#wakeAll();
  }

  /** Calls back once, at the next commit. */
  onWritten(callback: () => void): void {
    this.#onRoom = callback;
  }

  /** Wakes the readers, once for any number of appended events. */
  announce(): void {
    for (const reader of this.#readers) reader.wake();
  }

  /** From now on the reader hears of what is new; until it leaves. */
  join(reader: ReaderWake): void {
    this.#readers.add(reader);
  }
  leave(reader: ReaderWake): void {
    this.#readers.delete(reader);
  }

  /** What a reader gets that has everything up to `cursor`. */
  read(cursor: number): ReadStep {
    if (this.#isLost) return { kind: "log" };
    const visible = this.#visibleSeq;
    const end = this.#isSettled ? this.#end : undefined;
    if (cursor >= visible) {
      if (end) return { kind: "batch", batch: { lastSeq: end.lastSeq, events: [], end } };
      return { kind: cursor > this.#reservedSeq ? "unknown_cursor" : "wait" };
    }
    if (cursor + 1 < this.#window.firstSeq) return { kind: "log" };
    const events = this.#window.after(cursor, visible);
    const lastSeq = cursor + events.length;
    const isLast = end !== undefined && lastSeq === visible;
    return { kind: "batch", batch: isLast ? { lastSeq: end.lastSeq, events, end } : { lastSeq, events } };
  }

  get #visibleSeq(): number {
    return Math.min(this.#window.lastSeq, this.#reservedSeq);
  }

  #settle(): void {
    this.#isSettled = true;
    this.#settled.resolve();
  }

  #wakeAll(): void {
    this.announce();
    const callback = this.#onRoom;
    this.#onRoom = undefined;
    callback?.();
  }
}
