import type { CallContext } from "../../context.ts";
import { abortable } from "../../time/abortable.ts";
import { Deadline } from "../../time/deadline.ts";
import type { LiveTurn } from "../../turns/model/live-turn.ts";
import { followTurn, type FollowContext } from "../../turns/read/follow-turn.ts";
import { ReaderWake } from "../../turns/read/reader-wake.ts";
import type { TurnBatch } from "../../turns/read/turn-batch.ts";
import { CallerWatch, type WatchContext } from "./caller-watch.ts";

interface StreamContext extends WatchContext {
  call: FollowContext & CallContext;
  productId: string;
}

/** How long a started turn may take to its first event before the stream yields a batch without events. */
const FIRST_EVENT_PATIENCE_MS = 50;

export interface StreamTurnInput<Item> {
  turnId: string;
  /** The reader's cursor: everything up to it has been read; 0 for all. */
  afterSeq: number;
  /** Starts the turn. The first batch then says that the turn has begun, without events if none comes soon. */
  start?: (() => Promise<{ live: LiveTurn | undefined }>) | undefined;
  /** Aborts when the caller leaves. */
  signal: AbortSignal | undefined;
  /** Turns a batch into what a transport sends. A function, because one more generator would cost CPU per event. */
  encode: (turnId: string, batch: TurnBatch) => Item;
}

/**
 * Yields a turn's encoded batches for one caller, from the cursor to the end. It serves every transport. Two more
 * things end a stream:
 *
 * - The caller's key is refused: the last batch carries the end KEY_REVOKED, so that the reader does not come back.
 * - The caller leaves or the server closes: throws an AbortError, so that the reader resumes at another replica.
 */
export async function* streamTurn<Item>(
  ctx: StreamContext,
  input: StreamTurnInput<Item>,
): AsyncGenerator<Item, void, undefined> {
  const { turnId, start, encode } = input;
  let lastSeq = input.afterSeq;
  const watch = new CallerWatch(ctx, input.signal);
  try {
    let live: LiveTurn | undefined;
    if (start) {
      ({ live } = await abortable(start(), watch.signal));
      if (!(await hasEventSoon(live))) yield encode(turnId, { lastSeq, events: [] });
    }
    const reader = { productId: ctx.productId, turnId, afterSeq: lastSeq, signal: watch.signal, live };
    for await (const batch of followTurn(ctx.call, reader)) {
      lastSeq = batch.lastSeq;
      yield encode(turnId, batch);
      if (batch.end) return;
    }
  } catch (error) {
    // Once the watch has aborted the read, any error is a result of the abort. The watch has the reason.
    if (!watch.signal.aborted) throw error;
  } finally {
    watch[Symbol.dispose]();
  }
  if (watch.refused === undefined) throw new DOMException("the stream continues elsewhere", "AbortError");
  yield encode(turnId, toRefusedBatch(watch.refused, lastSeq));
}

async function hasEventSoon(turn: LiveTurn | undefined): Promise<boolean> {
  if (turn === undefined) return false;
  if (turn.lastSeq > 0) return true;
  using patience = new Deadline(FIRST_EVENT_PATIENCE_MS);
  using reader = new ReaderWake(patience.signal);
  reader.join(turn);
  while (turn.lastSeq === 0 && !patience.hasPassed) await reader.next();
  return turn.lastSeq > 0;
}

function toRefusedBatch(message: string, lastSeq: number): TurnBatch {
  const end = {
    status: "interrupted",
    reason: "KEY_REVOKED",
    message,
    engineError: null,
    lastSeq,
    engineMayContinue: true,
  } as const;
  return { lastSeq, events: [], end };
}
