import type { TRPCClient } from "@trpc/client";
import type { TRPCBuiltRouter } from "@trpc/server";
import type { AppRouter } from "../server/api/routers/router.ts";
import { EnginehouseError, findReason, fromEnd, toEnginehouseError } from "./enginehouse-error.ts";
import { followSignals } from "./follow-signals.ts";
import { followTurn } from "./read-turn.ts";
import type { Transport } from "./transport.ts";
import type { TurnEnd, TurnEvent, TurnGap } from "./turn-event.ts";
import { executeTurn, type OpenedTurn, type SequencedItem } from "./turn-stream.ts";

/**
 * The router, said to have a transformer. Without one tRPC's types tell what JSON makes of each output, and forget the
 * optional fields of an object that may hold others besides; with one they are what the server's schemas say, which is
 * JSON to begin with.
 */
type ApiRouter = TRPCBuiltRouter<
  Omit<AppRouter["_def"]["_config"]["$types"], "transformer"> & { transformer: true },
  AppRouter["_def"]["record"]
>;
export type Api = TRPCClient<ApiRouter>;
type StartInput = Parameters<Api["turns"]["start"]["mutate"]>[0];

export interface ExecuteInput extends Omit<StartInput, "turnId"> {
  /** The caller's id of the turn: executing it again reads the same turn. Made when absent. */
  turnId?: string | undefined;
  /** Stops the reading. The turn goes on; `cancel` is what ends it. */
  signal?: AbortSignal | undefined;
}

/**
 * A turn that was asked for. Iterating it reads its events, from the first one each time, over lost connections and
 * restarts. It returns when the turn is completed or cancelled and throws an EnginehouseError when it failed, was
 * interrupted, was refused, or when events are missing. Leaving the loop closes the connection.
 */
export interface Turn extends AsyncIterable<TurnEvent, void, undefined> {
  readonly turnId: string;
  /** What the engine answered: all text deltas together. Throws as the iteration does. */
  text(): Promise<string>;
  /**
   * How the turn ended, whatever the status; rejects when it was refused or cannot be read. While somebody iterates,
   * the end comes with the iteration; else the turn is read to its end for this.
   */
  readonly end: Promise<TurnEnd>;
  /** Ends the turn. What it returns is the turn as it is then. */
  cancel(): Promise<Awaited<ReturnType<Api["turns"]["cancel"]["mutate"]>>>;
}

interface TurnContext {
  api: Api;
  transport: Transport;
  /** Aborts when the client is closed. */
  closed: AbortSignal;
}

/**
 * Starts a turn, and returns before that has happened. A turn that is read from the first moment on is started and
 * read over one connection; else it is started by itself, so that nobody's unread events are kept on their way.
 */
export function openTurn(ctx: TurnContext, input: ExecuteInput): Turn {
  return new StartedTurn(ctx, input);
}

/** What says that the turn may not have begun, and that the next attempt, or replica, may well begin it. */
const START_AGAIN: readonly string[] = ["CONNECTION_LOST", "DRAINING", "DATABASE_UNAVAILABLE"];

class StartedTurn implements Turn {
  readonly turnId: string;
  readonly #ctx: TurnContext;
  /** What ends everything that is done here for the turn, and not the turn. */
  readonly #stops: readonly (AbortSignal | undefined)[];
  readonly #started: Promise<void>;
  readonly #end = defer<TurnEnd>();
  #isReadWanted = false;
  /** What starting it has opened, until its first reader takes it. */
  #opened: OpenedTurn | undefined;
  #isEndWanted = false;
  #isEnded = false;
  /** Who reads now; an end that is asked for comes with any of them. */
  #readers = 0;
  /** As far as any reader came. */
  #lastSeq = 0;

  constructor(ctx: TurnContext, { turnId = crypto.randomUUID(), signal, ...input }: ExecuteInput) {
    this.turnId = turnId;
    this.#ctx = ctx;
    this.#stops = [ctx.closed, signal];
    // A microtask later it is known whether somebody reads.
    this.#started = Promise.resolve().then(() => this.#start({ ...input, turnId }));
    // Both are looked at by whoever reads; a caller who does not read is not told.
    this.#started.catch((error: unknown) => this.#fail(error));
    this.#end.promise.catch(() => undefined);
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
      // A reader that leaves while it waits for the next event neither waits for that event nor hears of an abort.
      next: () =>
        events.next().catch((error: unknown) => {
          if (!hasLeft) throw error;
          return { done: true, value: undefined };
        }),
      return: async () => {
        hasLeft = true;
        reading.abort();
        // Before anybody has read: what is being opened is nobody's as soon as it is there.
        void this.#started.then(
          () => this.#dropUnread(),
          () => undefined,
        );
        return events.return();
      },
    };
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
      return await cancel.mutate({ turnId: this.turnId });
    } catch (error) {
      if (findReason(error) !== "TURN_NOT_FOUND") throw toEnginehouseError(error);
    }
    // The cancel may have overtaken the start.
    await this.#started;
    return await cancel.mutate({ turnId: this.turnId });
  }

  async #start(input: StartInput): Promise<void> {
    const { api } = this.#ctx;
    const starting = new AbortController();
    const unfollow = followSignals(starting, this.#stops);
    try {
      starting.signal.throwIfAborted();
      if (this.#isReadWanted) this.#opened = await this.#execute(input);
      if (this.#opened === undefined) await api.turns.start.mutate(input, { signal: starting.signal });
    } catch (error) {
      this.#throwIfStopped();
      throw toEnginehouseError(error);
    } finally {
      unfollow();
    }
  }

  /** undefined: it is not known to have begun, and is to be started by what tries again. */
  async #execute(input: StartInput): Promise<OpenedTurn | undefined> {
    try {
      return await executeTurn(this.#ctx.transport, input, this.#stops);
    } catch (error) {
      if (error instanceof EnginehouseError && START_AGAIN.includes(error.reason)) return undefined;
      throw error;
    }
  }

  async *#events(reading: AbortController): AsyncGenerator<TurnEvent, void> {
    for await (const { item } of this.#items(0, reading)) {
      const { events, gap, end } = item;
      if (gap) throw fromGap(gap, end);
      // The types are the contract's, which the engine has promised to keep.
      for (const event of events as readonly TurnEvent[]) yield event;
      if (end && isBad(end)) throw fromEnd(end);
    }
  }

  async *#items(afterSeq: number, reading: AbortController): AsyncGenerator<SequencedItem, void> {
    this.#readers += 1;
    const unfollow = followSignals(reading, this.#stops);
    try {
      await orAborted(this.#started, reading.signal);
      const opened = afterSeq === 0 ? this.#opened : undefined;
      if (opened) this.#opened = undefined;
      const place = { turnId: this.turnId, afterSeq, opened };
      for await (const received of followTurn(this.#ctx.transport, place, reading.signal)) {
        this.#lastSeq = Math.max(this.#lastSeq, received.lastSeq);
        if (received.item.end) this.#settle(received.item.end);
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

  /** Nobody came for what starting it has opened. */
  #dropUnread(): void {
    if (this.#readers > 0 || (this.#isEndWanted && !this.#isEnded)) return;
    this.#opened?.connection.abort();
    this.#opened = undefined;
  }

  #readForEnd(): void {
    if (!this.#isEndWanted || this.#isEnded || this.#readers > 0) return;
    this.#drain().catch((error: unknown) => this.#fail(error));
  }

  async #drain(): Promise<void> {
    await this.#started;
    // Whoever has begun to read meanwhile finds the end, too.
    if (this.#isEnded || this.#readers > 0) return;
    for await (const { item } of this.#items(this.#lastSeq, new AbortController())) {
      if (item.end) return;
    }
  }

  #settle(end: TurnEnd): void {
    this.#isEnded = true;
    this.#end.resolve(end);
  }

  #fail(error: unknown): void {
    this.#isEnded = true;
    this.#end.reject(error);
  }

  #throwIfStopped(): void {
    if (this.#ctx.closed.aborted) throw new EnginehouseError("CLIENT_CLOSED", "the client is closed");
    for (const stop of this.#stops) stop?.throwIfAborted();
  }
}

function isBad(end: TurnEnd): boolean {
  return end.status === "failed" || end.status === "interrupted";
}

/** Numbers that an interrupted turn had kept for itself are missing with it, and its end says why. */
function fromGap(gap: TurnGap, end: TurnEnd | undefined): EnginehouseError {
  if (end && isBad(end)) return fromEnd(end, gap);
  const message = `the events ${gap.fromSeq} to ${gap.toSeq} are missing (${gap.reason})`;
  return new EnginehouseError("EVENTS_MISSING", message, { gap, end });
}

interface Deferred<Value> {
  promise: Promise<Value>;
  resolve(value: Value): void;
  reject(error: unknown): void;
}

/** The promise, or the signal's reason as soon as it aborts. */
async function orAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const aborted = defer<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Promise.withResolvers, which Node 20 does not have. */
function defer<Value>(): Deferred<Value> {
  let settle: Omit<Deferred<Value>, "promise"> | undefined;
  const promise = new Promise<Value>((resolve, reject) => {
    settle = { resolve, reject };
  });
  return { promise, resolve: (value) => settle?.resolve(value), reject: (error) => settle?.reject(error) };
}
