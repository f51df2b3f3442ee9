import { StringDecoder } from "node:string_decoder";
import { createParser, type EventSourceMessage, type EventSourceParser } from "eventsource-parser";
import type { CancelAnswer } from "../../engine-contract/cancel.ts";
import { parseEventData } from "../../engine-contract/event-data.ts";
import { isLaterEventId } from "../../engine-contract/event-id.ts";
import type { StreamSink, StreamSource } from "../../engine-contract/stream-call.ts";
import { fieldOf } from "../../json/field-of.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { CANCELLED_BY_ENGINE, toEndCause, type EndCause } from "../model/turn-end.ts";
import type { StreamClose } from "./explain-close.ts";
import { describeMisread, type StreamSeen } from "./explain-missing-end.ts";
import type { IdleWatchdog } from "./idle-watchdog.ts";
import type { RunContext } from "./run-context.ts";
import { findTerminalCause } from "./terminal-event.ts";

export type ReaderContext = Pick<
  RunContext,
  "clock" | "config" | "connections" | "isoTime" | "turns" | "turnLog" | "turnTiming"
>;

export type UpstreamOutcome =
  /** A terminal event came, or a limit was exceeded. */
  | { kind: "ended"; cause: EndCause }
  /** The stream closed without a terminal event. */
  | ({ kind: "closed" } & StreamClose)
  /** An event of a replay has no id, or its id is no later than the one before. */
  | { kind: "unordered"; why: string }
  | { kind: "stopped" };

/** The parser's limit also counts a line's field name. `#isTooLarge` has the exact limit. */
const PARSER_SLACK = 64;
/** The longest end of line, twice. */
const TAIL_LENGTH = 4;
const SHOWN_LENGTH = 200;

interface UpstreamReaderOptions {
  turn: LiveTurn;
  watchdog: IdleWatchdog;
  source: StreamSource;
  /** Of the engine. Its errors may repeat the key. */
  apiKey: string;
  /** For a replay: the id of the last event that is known, "" if none is. Each event needs a later id. */
  replayAfter?: string;
}

/**
 * Reads an engine's event stream into a turn until the stream ends, breaks or exceeds a limit, or the turn is stopped.
 * All work is done per chunk: an event costs its parsing, and no promise or timer.
 */
export class UpstreamReader implements StreamSink {
  readonly #ctx: ReaderContext;
  readonly #turn: LiveTurn;
  readonly #watchdog: IdleWatchdog;
  readonly #source: StreamSource;
  readonly #apiKey: string;
  readonly #outcome = Promise.withResolvers<UpstreamOutcome>();
  /** Exists after a chunk that ends inside a character, until a chunk that does not. */
  #decoder: StringDecoder | undefined;
  readonly #parser: EventSourceParser;
  readonly #maxEventBytes: number;
  /** undefined: this is no replay, so the ids do not matter. */
  #replayedId: string | undefined;
  #cause: EndCause | undefined;
  /** After the turn was cancelled: what the engine makes of that. */
  #cancelling: "asked" | "answered" | undefined;
  #isCutOff = false;
  #droppedEvents = 0;
  #events = 0;
  #lastType = "";
  #beginsWithStarted = false;
  /** The last `thread_lifecycle` that was not understood. */
  #misread: { data: unknown } | undefined;
  #tail = "";
  #nowMs = 0;
  #at = "";

  constructor(ctx: ReaderContext, { turn, watchdog, source, apiKey, replayAfter }: UpstreamReaderOptions) {
    this.#ctx = ctx;
    this.#replayedId = replayAfter;
    this.#turn = turn;
    this.#watchdog = watchdog;
    this.#source = source;
    this.#apiKey = apiKey;
    this.#maxEventBytes = ctx.config.eventMaxBytes;
    this.#parser = createParser({
      maxBufferSize: this.#maxEventBytes + PARSER_SLACK,
      onEvent: (message) => this.#onEvent(message),
      onError: (error) => {
        if (error.type === "max-buffer-size-exceeded")
          this.#endTooLarge("EVENT_TOO_LARGE", this.#maxEventBytes);
      },
    });
  }

  /** Events after the terminal event. */
  get droppedEvents(): number {
    return this.#droppedEvents;
  }

  /** False if the stream has events and the first one is another. A replay may begin with any event. */
  get hasStarted(): boolean {
    return this.#events === 0 || this.#beginsWithStarted || this.#replayedId !== undefined;
  }

  /**
   * The caller closes the connection afterwards. Throws an error of our own while reading. If the turn is cancelled,
   * `askEngine` asks the engine to end it, and what the engine still sends is read.
   */
  async untilOver(askEngine: () => Promise<CancelAnswer>): Promise<UpstreamOutcome> {
    const onStop = () => {
      // A terminal event takes precedence over the stop.
      if (this.#cause || this.#turn.stopCause?.reason !== "CANCELLED") this.#resolveStopped();
      else this.#readUntilCancelled(askEngine).catch((error: unknown) => this.#outcome.reject(error));
    };
    const { stopSignal } = this.#turn;
    stopSignal.addEventListener("abort", onStop, { once: true });
    if (stopSignal.aborted) onStop();
    try {
      return await this.#outcome.promise;
    } finally {
      stopSignal.removeEventListener("abort", onStop);
      this.#isCutOff = true;
    }
  }

  #resolveStopped(): void {
    this.#outcome.resolve(this.#cause ? { kind: "ended", cause: this.#cause } : { kind: "stopped" });
  }

  async #readUntilCancelled(askEngine: () => Promise<CancelAnswer>): Promise<void> {
    this.#cancelling = "asked";
    const answer = await askEngine();
    this.#cancelling = "answered";
    // The last event of the stream is on its way.
    const isComing = answer === "cancelled" || answer === "no_turn";
    if (isComing && !this.#cause) await this.#ctx.clock.sleep(this.#ctx.turnTiming.closeStreamMs);
    this.#resolveStopped();
  }

  onChunk(chunk: Buffer): void {
    if (this.#isCutOff) return;
    try {
      this.#take(chunk);
    } catch (error) {
      // Thrown further, the error would look like a failed connection.
      this.#isCutOff = true;
      this.#outcome.reject(error);
    }
  }

  onClose(isClean: boolean, why: string): void {
    if (this.#cause) this.#outcome.resolve({ kind: "ended", cause: this.#cause });
    else this.#outcome.resolve({ kind: "closed", isClean, why, seen: this.#toSeen() });
  }

  #take(chunk: Buffer): void {
    const { clock, config, isoTime, turns, turnLog } = this.#ctx;
    const turn = this.#turn;
    const now = clock.now();
    this.#nowMs = now;
    this.#at = isoTime.toText(now);
    this.#watchdog.received(now);
    const hadCause = this.#cause !== undefined;
    if (!hadCause) turn.addBytes(chunk.length);
    const text = this.#decode(chunk);
    this.#tail =
      text.length < TAIL_LENGTH ? (this.#tail + text).slice(-TAIL_LENGTH) : text.slice(-TAIL_LENGTH);
    this.#parser.feed(text);
    if (hadCause) return;
    if (turn.size > config.turnMaxBytes) this.#endTooLarge("TURN_TOO_LARGE", config.turnMaxBytes);
    turn.announce();
    if (turn.isDirty) turnLog.touch(turn);
    if (turn.unwrittenBytes > turns.unwrittenLimit) this.#pauseForLog();
  }

  #decode(chunk: Buffer): string {
    const isWhole = (chunk.at(-1) ?? 0x80) < 0x80;
    if (isWhole && this.#decoder === undefined) return chunk.toString("utf8");
    this.#decoder ??= new StringDecoder("utf8");
    const text = this.#decoder.write(chunk);
    if (isWhole) this.#decoder = undefined;
    return text;
  }

  #onEvent(message: EventSourceMessage): void {
    if (this.#cause !== undefined) {
      this.#droppedEvents += 1;
      return;
    }
    if (this.#replayedId !== undefined && !this.#isNextOfReplay(message.id)) return;
    const type = message.event ?? "message";
    if (this.#isTooLarge(type, message.data)) {
      this.#endTooLarge("EVENT_TOO_LARGE", this.#maxEventBytes);
      return;
    }
    const { value, json } = parseEventData(message.data);
    this.#turn.append({ at: this.#at, type, json, id: message.id }, this.#nowMs);
    if (this.#events === 0) this.#beginsWithStarted = isStarted(type, value);
    this.#events += 1;
    this.#lastType = type;
    this.#interpret(type, value);
  }

  #isNextOfReplay(id: string | undefined): boolean {
    // One chunk may have more events after the wrong one.
    if (this.#isCutOff) return false;
    const before = this.#replayedId ?? "";
    if (isLaterEventId(id, before)) {
      this.#replayedId = id;
      return true;
    }
    this.#isCutOff = true;
    const what = id === undefined ? "an event without an id" : `an event with the id ${this.#show(id)}`;
    const after = before === "" ? "" : ` after the id ${before}`;
    this.#outcome.resolve({ kind: "unordered", why: `the engine's replay has ${what}${after}` });
    return false;
  }

  #isTooLarge(type: string, data: string): boolean {
    const length = type.length + data.length;
    // A UTF-16 unit is three bytes at most, so most events need no exact count.
    if (length * 3 <= this.#maxEventBytes) return false;
    return Buffer.byteLength(type) + Buffer.byteLength(data) > this.#maxEventBytes;
  }

  /** Handles the few event types that are about the turn itself. */
  #interpret(type: string, data: unknown): void {
    switch (type) {
      case "thread_lifecycle":
      case "error": {
        const cause = findTerminalCause(type, data, this.#ctx.connections.secrets.and(this.#apiKey));
        if (cause) this.#onTerminalEvent(cause);
        else if (fieldOf(data, "phase") !== "started") this.#misread = { data };
        break;
      }
      case "hitl_request":
        this.#turn.questions.ask(fieldOf(data, "request_id"), this.#nowMs);
        break;
      case "hitl_resolved":
        this.#turn.questions.resolve(fieldOf(data, "request_id"));
        break;
      default:
    }
  }

  /** Waits for the engine to close the stream: until then it may refuse the next turn of this task. */
  #onTerminalEvent(cause: EndCause): void {
    this.#turn.markComplete();
    if (this.#cancelling !== undefined) {
      this.#cause = cause.status === "completed" ? cause : CANCELLED_BY_ENGINE;
      // Before the engine's answer, the task may not be free yet.
      if (this.#cancelling === "answered") this.#resolveStopped();
      return;
    }
    this.#cause = cause;
    const end = () => this.#outcome.resolve({ kind: "ended", cause });
    const { clock, turnTiming } = this.#ctx;
    void clock.sleep(turnTiming.closeStreamMs, this.#turn.stopSignal).then(end, end);
  }

  #toSeen(): StreamSeen {
    const misread = this.#misread && describeMisread(this.#misread.data, (text) => this.#show(text));
    return { events: this.#events, lastType: this.#lastType, misread, tail: this.#tail };
  }

  #show(text: string): string {
    return this.#ctx.connections.secrets.and(this.#apiKey).hideInStart(text, SHOWN_LENGTH);
  }

  #endTooLarge(reason: "EVENT_TOO_LARGE" | "TURN_TOO_LARGE", limit: number): void {
    // Also after a terminal event: the parser throws when it gets more text after it exceeded its limit.
    this.#isCutOff = true;
    if (this.#cause !== undefined || this.#cancelling !== undefined) return;
    const what = reason === "EVENT_TOO_LARGE" ? "an event" : "the turn";
    this.#cause = toEndCause("failed", reason, { message: `${what} is larger than ${limit} bytes` });
    this.#outcome.resolve({ kind: "ended", cause: this.#cause });
  }

  /** Stops reading until the log has caught up. The engine notices a full socket. */
  #pauseForLog(): void {
    this.#source.pause();
    this.#watchdog.pause();
    this.#turn.onCommitted(() => {
      if (this.#turn.unwrittenBytes > this.#ctx.turns.unwrittenLimit) {
        this.#pauseForLog();
        return;
      }
      this.#watchdog.resume();
      this.#source.resume();
    });
  }
}

function isStarted(type: string, data: unknown): boolean {
  return type === "thread_lifecycle" && fieldOf(data, "phase") === "started";
}
