import type { TRPCClient } from "@trpc/client";
import type { TRPCBuiltRouter } from "@trpc/server";
import type { AppRouter } from "../server/api/routers/router.ts";
import { EnginehouseError, findReason, fromEnd, toEnginehouseError } from "./enginehouse-error.ts";
import { abortable } from "./abortable.ts";
import { toDeferred } from "./deferred.ts";
import { followTurn } from "./follow-turn.ts";
import { sleep } from "./sleep.ts";
import type { Transport } from "./transport.ts";
import type { TurnEnd, TurnEvent, TurnGap } from "./turn-event.ts";
import { executeTurn, type OpenedTurn, type SequencedBatch, type TurnKey } from "./turn-connection.ts";

/**
 * The router's type, declared to have a transformer. Without one, tRPC derives the JSON form of each output and loses
 * the optional fields of objects that allow additional fields. With one, the types are those of the server's schemas,
 * which are JSON already.
 */
type ApiRouter = TRPCBuiltRouter<
  Omit<AppRouter["_def"]["_config"]["$types"], "transformer"> & { transformer: true },
  AppRouter["_def"]["record"]
>;
export type Api = TRPCClient<ApiRouter>;
type StartInput = Parameters<Api["turns"]["start"]["mutate"]>[0];

interface ReadInput {
  /**
   * A cursor: reading begins after this sequence number. Default: 0, which reads everything. A turn that is read from a
   * cursor is not started, because a reader with a cursor has seen it start.
   */
  after?: number | undefined;
  /** Stops the reading. The turn continues; `cancel` ends it. */
  signal?: AbortSignal | undefined;
}

export interface ExecuteInput extends Omit<StartInput, "turnId">, ReadInput {
  /** The caller's id for the turn. Executing the same id again reads the same turn. Default: a random id. */
  turnId?: string | undefined;
}

export interface FollowInput extends Pick<StartInput, "turnId" | "product">, ReadInput {
  /** The turn must belong to this user; otherwise the reason is TURN_NOT_FOUND. Default: any user of the product. */
  userId?: string | undefined;
}

/**
 * A turn. Each iteration reads its events, from the first one or from `after` on, across lost connections and restarts.
 * It returns when the turn is completed or cancelled. It throws an EnginehouseError when the turn failed, was interrupted
 * or was refused, or when events are missing. Leaving the loop closes the connection.
 */
export interface Turn extends AsyncIterable<TurnEvent, void, undefined> {
  readonly turnId: string;
  /**
   * The last sequence number that a reader of this object has: of an event, or of the end. Given as `after`, reading
   * continues there, in another process too.
   */
  readonly cursor: number;
  /** The engine's answer: all text deltas joined. Throws like the iteration. */
  text(): Promise<string>;
  /**
   * How the turn ended, with any status. Rejects when the turn was refused or cannot be read. If an iteration is under
   * way, it delivers the end; otherwise the client reads the turn for this.
   */
  readonly end: Promise<TurnEnd>;
  /** Ends the turn, and returns its state after that. */
  cancel(): Promise<Awaited<ReturnType<Api["turns"]["cancel"]["mutate"]>>>;
  /**
   * Sends a person's answer to a question of the turn (`hitl_request`), once. The turn's events then continue. Name the
   * question by `requestId`, so that a late answer never answers the next question. If it is not open, this throws ENGINE_ERROR with the engine's error code NO_PENDING_REQUEST.
   */
  respond(answer: PersonAnswer): Promise<Awaited<ReturnType<Api["turns"]["respond"]["mutate"]>>>;
}

/** With an idempotency key of yours, the answer has its effect once even if you call again after a lost answer. */
export type PersonAnswer = Pick<
  Parameters<Api["turns"]["respond"]["mutate"]>[0],
  "requestId" | "answer" | "feedback" | "contentBlocks" | "idempotencyKey"
>;

/** What `toEventStream` uses of a turn. */
export interface ReadableTurn extends Turn {
  /**
   * Resolves when the turn is known to exist, with its end if it is known to have ended. Without `after`, reading begins
   * at the turn's own cursor. Must be called before anything else is done with the turn.
   */
  begin(after: number | undefined, signal: AbortSignal | undefined): Promise<TurnEnd | null>;
  /** What comes after the cursor of `begin`, with gaps and the end. Ends when `reading` aborts. */
  batches(reading: AbortController): AsyncGenerator<SequencedBatch, void>;
  /** Says that no reader comes, after `begin`. */
  leave(): void;
}

interface TurnContext {
  api: Api;
  transport: Transport;
  /** Aborts when the client is closed. */
  closed: AbortSignal;
}

/** After these the turn may not have started, and another attempt may start it. */
const START_AGAIN: readonly string[] = [
  "CONNECTION_LOST",
  "RATE_LIMITED",
  "STREAM_LIMIT",
  "DRAINING",
  "DATABASE_UNAVAILABLE",
];

/** These pass only with time. */
const TOO_MUCH: readonly string[] = ["RATE_LIMITED", "STREAM_LIMIT"];

/**
 * The constructor begins to start the turn, and does not wait. If the caller reads the turn at once, one connection both
 * starts and reads it. Otherwise the start has its own request, so that no unread events pile up on a connection.
 *
 * Without a request, or with a cursor, the turn is looked up and not started.
 */
export class StartedTurn implements ReadableTurn {
  readonly turnId: string;
  readonly #ctx: TurnContext;
  readonly #key: TurnKey;
  readonly #userId: string | undefined;
  /** Where each iteration begins. */
  #after: number;
  #cursor: number;
  /** How the turn had ended when it was looked up. */
  #foundEnd: TurnEnd | null = null;
  /** Each of these ends the start and the reading. The turn itself continues. */
  readonly #stops: readonly (AbortSignal | undefined)[];
  readonly #started: Promise<void>;
  readonly #end = toDeferred<TurnEnd>();
  #isReadWanted = false;
  /** The connection that started the turn, until its first reader takes it. */
  #opened: OpenedTurn | undefined;
  #isEndWanted = false;
  #hasEnd = false;
  /** How many readers there are now. Any of them delivers the end. */
  #readers = 0;
  /** The highest sequence number that has arrived for any reader. */
  #lastSeq: number;

  constructor(ctx: TurnContext, input: FollowInput | ExecuteInput) {
    const { turnId = crypto.randomUUID(), userId, product, after = 0, signal, ...rest } = input;
    this.turnId = turnId;
    this.#ctx = ctx;
    this.#key = { turnId, ...(product !== undefined && { product }) };
    this.#userId = userId;
    this.#after = this.#cursor = this.#lastSeq = requireCursor(after, input);
    this.#stops = [ctx.closed, signal];
    // A microtask later it is known whether the caller reads at once, and from where.
    this.#started = Promise.resolve().then(() =>
      "request" in rest && userId !== undefined && this.#after === 0
        ? this.#start({ ...rest, ...this.#key, userId })
        : this.#find(),
    );
    // Readers get both errors. A caller that does not read must not get an unhandled rejection.
    this.#started.catch((error: unknown) => this.#fail(error));
    this.#end.promise.catch(() => undefined);
  }

  get cursor(): number {
    return this.#cursor;
  }

  get end(): Promise<TurnEnd> {
    this.#isEndWanted = true;
    this.#isReadWanted = true;
    this.#readForEnd();
    return this.#end.promise;
  }

  [Symbol.asyncIterator](): AsyncIterator<TurnEvent, void, undefined> {
    this.#isReadWanted = true;
    const reading = new AbortController();
    let hasLeft = false;
    const events = this.#events(reading);
    return {
      // A reader that leaves while it waits for the next event must not wait for it, or get the error of the abort.
      next: () =>
        events.next().catch((error: unknown) => {
          if (!hasLeft) throw error;
          return { done: true, value: undefined };
        }),
      return: async () => {
        hasLeft = true;
        reading.abort();
        this.leave();
        return events.return();
      },
    };
  }

  async begin(after: number | undefined, signal: AbortSignal | undefined): Promise<TurnEnd | null> {
    if (after !== undefined) this.#after = this.#cursor = this.#lastSeq = after;
    this.#isReadWanted = true;
    if (!signal) await this.#started;
    else await abortable(this.#started, signal);
    return this.#foundEnd;
  }

  async *batches(reading: AbortController): AsyncGenerator<SequencedBatch, void> {
    for await (const received of this.#batches(this.#after, reading)) {
      yield received;
      this.#cursor = received.lastSeq;
    }
  }

  /** If the reader leaves before its first read, the connection of the start never gets a reader. */
  leave(): void {
    void this.#started.then(
      () => this.#dropUnread(),
      () => undefined,
    );
  }

  async text(): Promise<string> {
    let text = "";
    for await (const event of this) {
      if (event.type === "text_delta" && typeof event.data.text === "string") text += event.data.text;
    }
    return text;
  }

  async cancel(): Promise<Awaited<ReturnType<Turn["cancel"]>>> {
    const { cancel } = this.#ctx.api.turns;
    try {
      return await cancel.mutate(this.#key);
    } catch (error) {
      if (findReason(error) !== "TURN_NOT_FOUND") throw toEnginehouseError(error);
    }
    // The cancellation may have overtaken the start.
    await this.#started;
    return await cancel.mutate(this.#key);
  }

  async #find(): Promise<void> {
    const looking = new AbortController();
    const unfollow = this.#ctx.transport.signals.follow(looking, this.#stops);
    try {
      const found = await this.#ctx.api.turns.get.query(this.#key, { signal: looking.signal });
      if (this.#userId !== undefined && found.userId !== this.#userId) {
        // The same answer as for a turn of another product: a user must not learn that the turn exists.
        throw new EnginehouseError("TURN_NOT_FOUND", `this user has no turn ${this.turnId}`);
      }
      this.#foundEnd = found.end;
    } catch (error) {
      this.#throwIfStopped();
      throw toEnginehouseError(error);
    } finally {
      unfollow();
    }
  }

  async respond(answer: PersonAnswer): Promise<Awaited<ReturnType<Turn["respond"]>>> {
    try {
      return await this.#ctx.api.turns.respond.mutate({ ...answer, ...this.#key });
    } catch (error) {
      throw toEnginehouseError(error);
    }
  }

  async #start(input: StartInput): Promise<void> {
    const { api } = this.#ctx;
    const starting = new AbortController();
    const unfollow = this.#ctx.transport.signals.follow(starting, this.#stops);
    try {
      starting.signal.throwIfAborted();
      if (this.#isReadWanted) this.#opened = await this.#execute(input, starting.signal);
      if (this.#opened === undefined) await api.turns.start.mutate(input, { signal: starting.signal });
    } catch (error) {
      this.#throwIfStopped();
      throw toEnginehouseError(error);
    } finally {
      unfollow();
    }
  }

  /** undefined: the turn may not have started, and `turns.start` must start it, with retries. */
  async #execute(input: StartInput, signal: AbortSignal): Promise<OpenedTurn | undefined> {
    const { transport } = this.#ctx;
    try {
      return await executeTurn(transport, input, this.#stops);
    } catch (error) {
      if (!(error instanceof EnginehouseError && START_AGAIN.includes(error.reason))) throw error;
      const waitMs = TOO_MUCH.includes(error.reason) ? (error.retryAfterMs ?? 0) : 0;
      if (waitMs > transport.retry.callForMs) throw error;
      await sleep(waitMs, signal);
      return undefined;
    }
  }

  async *#events(reading: AbortController): AsyncGenerator<TurnEvent, void> {
    for await (const { batch } of this.#batches(this.#after, reading)) {
      const { events, gap, end } = batch;
      if (gap) throw fromGap(gap, end);
      // The engine contract guarantees these types; nothing checks them here.
      for (const event of events as readonly TurnEvent[]) {
        if (event.seq > this.#cursor) this.#cursor = event.seq;
        yield event;
      }
      if (end) this.#cursor = end.lastSeq;
      if (end && hasFailed(end)) throw fromEnd(end);
    }
  }

  async *#batches(afterSeq: number, reading: AbortController): AsyncGenerator<SequencedBatch, void> {
    this.#readers += 1;
    const unfollow = this.#ctx.transport.signals.follow(reading, this.#stops);
    try {
      await abortable(this.#started, reading.signal);
      const opened = afterSeq === 0 ? this.#opened : undefined;
      if (opened) this.#opened = undefined;
      const cursor = { key: this.#key, afterSeq, opened };
      for await (const received of followTurn(this.#ctx.transport, cursor, reading.signal)) {
        this.#lastSeq = Math.max(this.#lastSeq, received.lastSeq);
        if (received.batch.end) this.#finish(received.batch.end);
        yield received;
      }
    } catch (error) {
      this.#throwIfStopped();
      throw error;
    } finally {
      unfollow();
      this.#readers -= 1;
      this.#readForEnd();
    }
  }

  /** Closes the connection of the start if it has no reader and none is expected. */
  #dropUnread(): void {
    if (this.#readers > 0 || (this.#isEndWanted && !this.#hasEnd)) return;
    this.#opened?.connection.abort();
    this.#opened = undefined;
  }

  #readForEnd(): void {
    if (!this.#isEndWanted || this.#hasEnd || this.#readers > 0) return;
    this.#readToEnd().catch((error: unknown) => this.#fail(error));
  }

  async #readToEnd(): Promise<void> {
    await this.#started;
    // A reader that has begun since then delivers the end.
    if (this.#hasEnd || this.#readers > 0) return;
    for await (const { batch } of this.#batches(this.#lastSeq, new AbortController())) {
      if (batch.end) return;
    }
  }

  #finish(end: TurnEnd): void {
    this.#hasEnd = true;
    this.#end.resolve(end);
  }

  #fail(error: unknown): void {
    this.#hasEnd = true;
    this.#end.reject(error);
  }

  #throwIfStopped(): void {
    if (this.#ctx.closed.aborted) throw new EnginehouseError("CLIENT_CLOSED", "the client is closed");
    for (const stop of this.#stops) stop?.throwIfAborted();
  }
}

/** Only a turn that exists can be read from a cursor, and a random id is that of no turn. */
function requireCursor(after: number, { turnId }: Pick<ExecuteInput, "turnId">): number {
  if (!Number.isSafeInteger(after) || after < 0)
    throw new TypeError(`\`after\` is ${after}: pass the sequence number of an event, or 0`);
  if (after > 0 && turnId === undefined) throw new TypeError("`after` needs `turnId`: pass the turn's id");
  return after;
}

function hasFailed(end: TurnEnd): boolean {
  return end.status === "failed" || end.status === "interrupted";
}

/** An interrupted turn leaves its reserved sequence numbers as a gap. Then the error has the end's reason. */
function fromGap(gap: TurnGap, end: TurnEnd | undefined): EnginehouseError {
  if (end && hasFailed(end)) return fromEnd(end, gap);
  const message = `the events ${gap.fromSeq} to ${gap.toSeq} are missing (${gap.reason})`;
  return new EnginehouseError("EVENTS_MISSING", message, { gap, end });
}
