import type { TurnAppend } from "../../../db/turn-events.ts";
import type { NewTurn, TurnRow, TurnStatus } from "../../../db/turns.ts";
import { isEventId } from "../../engine-contract/event-id.ts";
import type { Holder, HoldView } from "../../engines/access/hold-view.ts";
import { TurnWindow, type AppendedEvent } from "../log/turn-window.ts";
import type { ReaderWake } from "../read/reader-wake.ts";
import type { TurnBatch } from "../read/turn-batch.ts";
import { OpenQuestions } from "./open-questions.ts";
import type { EndCause, TurnEnd } from "./turn-end.ts";
import { TurnProgress } from "./turn-progress.ts";
import type { TurnState, TurnWait } from "./turn-states.ts";

/** How far ahead of the last event each commit reserves, at least. */
export const RESERVE_AHEAD = 1024;
/** `streaming` is written with the first commit after this, so that it never delays the first event. */
const STATUS_AGE_MS = 10;
/** With this much to write a turn is due at once, whatever its age. */
const DUE_BYTES = 16 * 1024;

/** `fencingToken` is unique to this attempt at the turn, so that writes of an older or a newer owner do not match. */
export type LiveTurnInput = Pick<
  NewTurn,
  "productId" | "turnId" | "userId" | "taskId" | "fingerprint" | "startedBy" | "fencingToken"
>;

/** What is known once the row is written. */
export interface TurnRecord {
  engineId: string;
  generation: number;
  /** As Postgres writes it: the key of the log's partition. */
  startedAt: string;
}

/** A turn of a dead owner, as its row has it. */
export type TakenTurn = TurnRecord & Pick<TurnRow, "status" | "lastSeq" | "reservedSeq" | "bytes">;

/** What one commit writes of one turn. */
export interface TurnCommit extends TurnAppend {
  turn: LiveTurn;
}

/** `log`: memory does not have what comes after the cursor, so read the log. */
export type ReadStep = { kind: "batch"; batch: TurnBatch } | { kind: "wait" | "log" | "unknown_cursor" };

/**
 * A turn that this replica owns. `turn-states.ts` has its states.
 *
 *   engine ─▶ append ─▶ written │ not written yet ─▶ toCommit ─▶ log ─▶ markCommitted
 *                            └─ readers: up to the reserved seq, written or not
 *
 * Readers may get an event before it is written, because the end of a lost owner takes a seq past `reservedSeq`.
 * Readers get the end only after its commit.
 */
export class LiveTurn implements Holder {
  readonly input: LiveTurnInput;
  readonly questions = new OpenQuestions();
  readonly #progress = new TurnProgress();
  readonly #stop = new AbortController();
  readonly #window = new TurnWindow();
  readonly #readers = new Set<ReaderWake>();
  #onCommitted: (() => void) | undefined;

  #record: TurnRecord | undefined;
  #stopCause: EndCause | undefined;
  #end: TurnEnd | undefined;
  #streamingSince: number | undefined;
  /** The status in the row. */
  #writtenStatus: TurnStatus = "starting";
  #reservedSeq = RESERVE_AHEAD;
  /** Readers may have got events up to here from an earlier owner; 0 if there was none, or the engine's last event is known. */
  #shownSeq = 0;
  #oldestUnwrittenAt = 0;
  #bytes = 0;

  constructor(input: LiveTurnInput) {
    this.input = input;
  }

  get state(): TurnState {
    return this.#progress.state;
  }
  /** Ended, left, lost or refused: no write of this turn follows. */
  get isOver(): boolean {
    return this.#progress.isOver;
  }
  /** True once the callers of start got their answer. */
  get isAnswered(): boolean {
    return this.#progress.isAnswered;
  }
  get record(): TurnRecord | undefined {
    return this.#record;
  }
  get status(): TurnStatus {
    return this.#committedEnd?.status ?? this.#liveStatus;
  }
  /** The last seq that readers may have. */
  get lastSeq(): number {
    return this.#committedEnd?.lastSeq ?? this.#visibleSeq;
  }
  /** Of the last event that came from the engine, seen by readers or not. */
  get receivedSeq(): number {
    return this.#window.lastSeq;
  }
  /** The engine's id of that event; undefined if the engine does not number its events. */
  get lastEventId(): string | undefined {
    const id = this.#window.lastId;
    return isEventId(id) ? id : undefined;
  }
  /** Received from the engine so far. */
  get bytes(): number {
    return this.#bytes;
  }
  /** The larger of the bytes received and the bytes in the log, where even a tiny event takes a hundred. */
  get size(): number {
    return Math.max(this.#bytes, this.#window.totalBytes);
  }
  get unwrittenBytes(): number {
    return this.#window.unwrittenBytes;
  }
  get hasEnd(): boolean {
    return this.#end !== undefined;
  }
  /** Aborts when the turn has to end before its engine ends it. */
  get stopSignal(): AbortSignal {
    return this.#stop.signal;
  }
  get stopCause(): EndCause | undefined {
    return this.#stopCause;
  }

  toHoldView(): HoldView {
    const { turnId, taskId } = this.input;
    return {
      kind: "turn",
      turnId,
      taskId,
      status: this.status,
      isWaitingForPerson: !this.questions.isEmpty,
    };
  }

  /** See `TURN_WAITS`. Throws the refusal if the start is refused, except for `over`. */
  async until(wait: TurnWait): Promise<void> {
    await this.#progress.until(wait);
  }
  /** Resolves once the callers of start can be answered; throws the error that they get. */
  async untilAnswered(): Promise<void> {
    await this.#progress.untilAnswered();
  }

  markNew(): void {
    this.#progress.move("findNew");
  }

  markRecorded(record: TurnRecord): void {
    this.#record = record;
    this.#progress.move("record");
  }

  markStreaming(nowMs: number): void {
    if (this.#progress.move("stream")) this.#streamingSince = nowMs;
  }

  /** The row names this replica now. Readers that have more than the log wait until the engine has sent it again. */
  markTakenOver(taken: TakenTurn, nowMs: number): void {
    const { engineId, generation, startedAt, status, lastSeq, reservedSeq, bytes } = taken;
    this.#record = { engineId, generation, startedAt };
    this.#window.startAfter(lastSeq);
    this.#reservedSeq = reservedSeq;
    this.#shownSeq = reservedSeq;
    this.#bytes = bytes;
    this.#writtenStatus = status;
    if (status === "streaming") this.#streamingSince = nowMs;
    this.#progress.move("takeOver");
    this.answer();
  }

  /** What the log has of a turn that was taken over: the engine's id of the last event, and the size of all events. */
  resumeLog(log: { engineEventId: string | null; bytes: number }): void {
    this.#window.resume(log);
  }

  /** The engine's last event has come, so no reader has events beyond it. */
  markComplete(): void {
    this.#shownSeq = 0;
  }

  /**
   * Stops reading, and leaves the turn to its next owner once all its events are committed. False: no owner could go on
   * with it, because its engine does not number its events, or because it ends.
   */
  leaveToNextOwner(): boolean {
    const canGoOn =
      this.state === "attaching" || (this.state === "streaming" && this.lastEventId !== undefined);
    if (!canGoOn || this.#stopCause !== undefined) return false;
    this.#progress.move("leave");
    this.#stop.abort();
    this.#handOverIfWritten();
    return true;
  }

  /** Answers the callers of start with the turn as it is, or with an error. Only the first answer counts. */
  answer(error?: unknown): void {
    this.#progress.answer(error);
  }

  /** The turn did not begin: callers of start get the error, and there is nothing to read. */
  refuse(error: unknown): void {
    this.#progress.refuse(error);
    this.announce();
  }

  /** Makes the turn end with this cause instead of the engine's. Only the first cause counts, and none after the end. */
  stop(cause: EndCause): void {
    if (this.#stopCause !== undefined || this.#end !== undefined) return;
    this.#stopCause = cause;
    this.#stop.abort();
  }

  /** Readers get it with the next `announce`. */
  append(event: AppendedEvent, nowMs: number): void {
    if (this.#window.unwrittenBytes === 0) this.#oldestUnwrittenAt = nowMs;
    this.#window.append(event);
  }

  addBytes(count: number): void {
    this.#bytes += count;
  }

  /** Readers get the end after its commit. */
  end(cause: EndCause): void {
    const shownSeq = Math.max(this.#window.lastSeq, this.#shownSeq);
    if (this.#progress.move("end")) this.#end = { ...cause, lastSeq: shownSeq + 1 };
  }

  /** True when there is something to commit. */
  get isDirty(): boolean {
    if (this.isOver) return false;
    return this.#window.unwrittenBytes > 0 || !this.#isStatusWritten || this.#end !== undefined;
  }

  /** When to commit the turn; 0 is at once. */
  dueAt(maxAgeMs: number): number {
    const isUrgent =
      this.#end !== undefined ||
      this.#window.unwrittenBytes >= DUE_BYTES ||
      this.#window.lastSeq >= this.#reservedSeq;
    if (isUrgent) return 0;
    const eventsDueAt = this.#window.unwrittenBytes > 0 ? this.#oldestUnwrittenAt + maxAgeMs : Infinity;
    if (this.#streamingSince === undefined || this.#isStatusWritten) return eventsDueAt;
    return Math.min(this.#streamingSince + STATUS_AGE_MS, eventsDueAt);
  }

  /** Until `markCommitted` the same events are in every commit. */
  toCommit(): TurnCommit {
    const eventSeq = this.#window.lastSeq;
    const lastSeq = this.#end?.lastSeq ?? eventSeq;
    const burst = eventSeq - this.#window.writtenSeq;
    return {
      turn: this,
      ...this.input,
      chunks: this.#window.toChunks(),
      lastSeq,
      reservedSeq: Math.max(this.#reservedSeq, lastSeq + RESERVE_AHEAD + 4 * burst),
      bytes: this.#bytes,
      status: this.#end?.status ?? this.#liveStatus,
      end: this.#end && JSON.stringify(this.#end),
    };
  }

  markCommitted(commit: TurnCommit, nowMs: number): void {
    this.#window.markWritten(commit.chunks);
    this.#reservedSeq = commit.reservedSeq;
    this.#oldestUnwrittenAt = nowMs;
    this.#writtenStatus = commit.status;
    if (commit.end !== undefined) this.#progress.move("commit");
    this.#handOverIfWritten();
    this.#wakeAll();
  }

  /** Another replica owns or has ended the turn: nothing of ours can be written any more. */
  markLost(): void {
    this.#progress.move("lose");
    this.#stop.abort();
    this.answer();
    this.#wakeAll();
  }

  /** Calls back once, after the next commit. */
  onCommitted(callback: () => void): void {
    this.#onCommitted = callback;
  }

  /** Wakes the readers, once for any number of appended events. */
  announce(): void {
    for (const reader of this.#readers) reader.wake();
  }

  /** From now on `announce` wakes the reader, until it leaves. */
  join(reader: ReaderWake): void {
    this.#readers.add(reader);
  }
  leave(reader: ReaderWake): void {
    this.#readers.delete(reader);
  }

  /** The next step of a reader that has everything up to `cursor`. */
  read(cursor: number): ReadStep {
    if (this.state === "lost" || this.state === "refused") return { kind: "log" };
    const visible = this.#visibleSeq;
    const end = this.#committedEnd;
    if (cursor >= visible) {
      // The events before this end are lost. The log reports them as a gap.
      if (end && end.lastSeq > this.#window.lastSeq + 1) return { kind: "log" };
      if (end) return { kind: "batch", batch: { lastSeq: end.lastSeq, events: [], end } };
      return { kind: cursor > this.#reservedSeq ? "unknown_cursor" : "wait" };
    }
    if (cursor + 1 < this.#window.firstSeq) return { kind: "log" };
    const events = this.#window.after(cursor, visible);
    const lastSeq = cursor + events.length;
    const isLast = end !== undefined && lastSeq + 1 === end.lastSeq;
    return { kind: "batch", batch: isLast ? { lastSeq: end.lastSeq, events, end } : { lastSeq, events } };
  }

  get #visibleSeq(): number {
    return Math.min(this.#window.lastSeq, this.#reservedSeq);
  }
  get #committedEnd(): TurnEnd | undefined {
    return this.state === "ended" ? this.#end : undefined;
  }
  /** The status without regard to the end. */
  get #liveStatus(): TurnStatus {
    return this.#streamingSince === undefined ? "starting" : "streaming";
  }
  get #isStatusWritten(): boolean {
    return this.#writtenStatus === this.#liveStatus;
  }

  #handOverIfWritten(): void {
    if (this.state === "leaving" && this.#window.unwrittenBytes === 0) this.#progress.move("handOver");
  }

  #wakeAll(): void {
    this.announce();
    const callback = this.#onCommitted;
    this.#onCommitted = undefined;
    callback?.();
  }
}
