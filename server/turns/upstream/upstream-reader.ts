import { StringDecoder } from "node:string_decoder";
import { createParser, type EventSourceMessage, type EventSourceParser } from "eventsource-parser";
import { toEventError } from "../../engine-contract/errors.ts";
import { parseEventData } from "../../engine-contract/event-data.ts";
import type { IdleWatchdog } from "./idle-watchdog.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import type { StreamSink, StreamSource } from "../../engine-contract/execute.ts";
import { COMPLETED, toEndCause, type EndCause } from "../model/turn-end.ts";
import type { TurnRegistry } from "../turn-registry.ts";

export type UpstreamOutcome =
  /** The engine said how it ended, or went over a limit. */
  | { kind: "ended"; cause: EndCause }
  /** It closed without a last word; `isClean` when it ended its response properly. */
  | { kind: "closed"; isClean: boolean; why: string }
  | { kind: "stopped" };

/** The parser's bound counts a line's field name too; the exact one is ours. */
const PARSER_SLACK = 64;

interface UpstreamReaderOptions {
  turn: LiveTurn;
  watchdog: IdleWatchdog;
  source: StreamSource;
}

/**
 * Reads an engine's event stream into a turn until it ends, breaks, goes over a limit, or the turn is stopped. All
 * is done per chunk: an event costs its parsing, and no promise or timer.
 */
export class UpstreamReader implements StreamSink {
  readonly #registry: TurnRegistry;
  readonly #turn: LiveTurn;
  readonly #watchdog: IdleWatchdog;
  readonly #source: StreamSource;
  readonly #outcome = Promise.withResolvers<UpstreamOutcome>();
  /** Only after a chunk that ends inside of a character, until one that does not. */
  #decoder: StringDecoder | undefined;
  readonly #parser: EventSourceParser;
  readonly #maxEventBytes: number;
  #cause: EndCause | undefined;
  #isCutOff = false;
  #droppedEvents = 0;
  #nowMs = 0;
  #at = "";

  constructor(registry: TurnRegistry, { turn, watchdog, source }: UpstreamReaderOptions) {
    this.#registry = registry;
    this.#turn = turn;
    this.#watchdog = watchdog;
    this.#source = source;
    this.#maxEventBytes = registry.options.config.eventMaxBytes;
    this.#parser = createParser({
      maxBufferSize: this.#maxEventBytes + PARSER_SLACK,
      onEvent: (message) => this.#onEvent(message),
      onError: (error) => {
        if (error.type === "max-buffer-size-exceeded")
          this.#endTooLarge("EVENT_TOO_LARGE", this.#maxEventBytes);
      },
    });
  }

  /** Events that came after the last word. */
  get droppedEvents(): number {
    return this.#droppedEvents;
  }

  /** The caller closes the connection afterwards. Throws what went wrong with the reading itself. */
  async untilOver(): Promise<UpstreamOutcome> {
    // What the engine has said in the end counts, whoever wanted it to stop then.
    const onStop = () =>
      this.#outcome.resolve(this.#cause ? { kind: "ended", cause: this.#cause } : { kind: "stopped" });
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

  onChunk(chunk: Buffer): void {
    if (this.#isCutOff) return;
    try {
      this.#take(chunk);
    } catch (error) {
      // Whoever calls would take it for a failure of the connection.
      this.#isCutOff = true;
      this.#outcome.reject(error);
    }
  }

  onClose(isClean: boolean, why: string): void {
    if (this.#cause) this.#outcome.resolve({ kind: "ended", cause: this.#cause });
    else this.#outcome.resolve({ kind: "closed", isClean, why });
  }

  #take(chunk: Buffer): void {
    const now = this.#registry.options.clock.now();
    this.#nowMs = now;
    this.#at = this.#registry.toIso(now);
    this.#watchdog.heard(now);
    const hadCause = this.#cause !== undefined;
    if (!hadCause) this.#turn.addBytes(chunk.length);
    this.#parser.feed(this.#decode(chunk));
    if (hadCause) return;
    const { turnMaxBytes } = this.#registry.options.config;
    if (this.#turn.size > turnMaxBytes) this.#endTooLarge("TURN_TOO_LARGE", turnMaxBytes);
    this.#turn.announce();
    if (this.#turn.isDirty) this.#registry.log.touch(this.#turn);
    if (this.#turn.unwrittenBytes > this.#registry.unwrittenLimit) this.#waitForLog();
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
    const type = message.event ?? "message";
    if (this.#isTooLarge(type, message.data)) {
      this.#endTooLarge("EVENT_TOO_LARGE", this.#maxEventBytes);
      return;
    }
    const { value, json } = parseEventData(message.data);
    this.#turn.append({ at: this.#at, type, data: value }, json, this.#nowMs);
    this.#takeNotice(type, value);
  }

  #isTooLarge(type: string, data: string): boolean {
    const length = type.length + data.length;
    // A UTF-16 unit is three bytes at most, so most events need no counting.
    if (length * 3 <= this.#maxEventBytes) return false;
    return Buffer.byteLength(type) + Buffer.byteLength(data) > this.#maxEventBytes;
  }

  /** A few types say something about the turn itself. */
  #takeNotice(type: string, data: unknown): void {
    switch (type) {
      case "thread_lifecycle":
        if (fieldOf(data, "phase") === "completed") this.#hearLastWord(COMPLETED);
        else if (fieldOf(data, "phase") === "errored") this.#hearLastWord(toEngineFailure(data));
        break;
      case "error":
        this.#hearLastWord(toEngineFailure(data));
        break;
      case "hitl_request":
        this.#watchdog.asked(fieldOf(data, "request_id"));
        break;
      case "hitl_resolved":
        this.#watchdog.resolved(fieldOf(data, "request_id"));
        break;
      default:
    }
  }

  /** The engine is about to close; until it does it may refuse the next turn of this task, so that is waited for. */
  #hearLastWord(cause: EndCause): void {
    this.#cause = cause;
    const end = () => this.#outcome.resolve({ kind: "ended", cause });
    void this.#registry.options.clock
      .sleep(this.#registry.timing.lastWordMs, this.#turn.stopSignal)
      .then(end, end);
  }

  #endTooLarge(reason: "EVENT_TOO_LARGE" | "TURN_TOO_LARGE", limit: number): void {
    // Whatever has been decided already: a parser that has met its bound throws when it is fed again.
    this.#isCutOff = true;
    if (this.#cause !== undefined) return;
    const what = reason === "EVENT_TOO_LARGE" ? "an event" : "the turn";
    this.#cause = toEndCause("failed", reason, { message: `${what} is larger than ${limit} bytes` });
    this.#outcome.resolve({ kind: "ended", cause: this.#cause });
  }

  /** Reads no further until the log has caught up; the engine feels it as a full socket. */
  #waitForLog(): void {
    this.#source.pause();
    this.#watchdog.pause();
    this.#turn.onWritten(() => {
      if (this.#turn.unwrittenBytes > this.#registry.unwrittenLimit) {
        this.#waitForLog();
        return;
      }
      this.#watchdog.resume();
      this.#source.resume();
    });
  }
}

function toEngineFailure(data: unknown): EndCause {
  const engineError = toEventError(data);
  const message = `the engine reported ${engineError.code}`;
  return toEndCause("failed", "ENGINE_ERROR", { message, engineError, engineMayContinue: false });
}

function fieldOf(data: unknown, name: string): unknown {
  return typeof data === "object" && data !== null ? (data as Record<string, unknown>)[name] : undefined;
}
