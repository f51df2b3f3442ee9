import type { OpenStreams } from "../../admission/open-streams.ts";
import type { CallContext } from "../../context.ts";
import type { ProductPolicy } from "../../products/product-policy.ts";
import { abortable } from "../../time/abortable.ts";
import { Deadline } from "../../time/deadline.ts";
import type { LiveTurn } from "../../turns/model/live-turn.ts";
import { followTurn, type FollowContext } from "../../turns/read/follow-turn.ts";
import { ReaderWake } from "../../turns/read/reader-wake.ts";
import type { ReaderRoom } from "../../turns/read/reader-room.ts";
import type { TurnBatch } from "../../turns/read/turn-batch.ts";
import { CallerWatch, type WatchContext } from "./caller-watch.ts";

/** The connection to a stream's reader. */
export interface ReaderConnection extends ReaderRoom {
  write(text: string): void;
  /** Closes within a second, even if the reader does not take what was written. */
  closeSoon(): void;
}

/** Turns a batch into the text that a transport sends. `afterSeq` is the reader's cursor before the batch. */
export type EncodeBatch = (turnId: string, afterSeq: number, batch: TurnBatch) => string;

interface StreamContext extends WatchContext {
  call: FollowContext & CallContext & { openStreams: OpenStreams };
  productId: string;
  policy: Pick<ProductPolicy, "maxOpenStreams" | "maxOpenStreamsPerKey">;
  /** For a product whose policy does not have the limit. */
  maxOpenStreams: number;
  /** A function, because one more generator would cost CPU per event. */
  encode: EncodeBatch;
  connection?: ReaderConnection;
}

/** How long a started turn may take to its first event before the stream yields a batch without events. */
const FIRST_EVENT_PATIENCE_MS = 50;

export interface StreamTurnInput {
  turnId: string;
  /** The reader's cursor: everything up to it has been read; 0 for all. */
  afterSeq: number;
  /** Starts the turn. The first batch then says that the turn has begun, without events if none comes soon. */
  start?: (() => Promise<{ live: LiveTurn | undefined }>) | undefined;
  /** Throws if this caller must not read the turn. Called before anything is read. */
  check?: (() => Promise<void>) | undefined;
  /** Aborts when the caller leaves. */
  signal: AbortSignal | undefined;
}

/**
 * Yields a turn's encoded batches for one caller, from the cursor to the end. It serves every transport. Two more
 * things end a stream:
 *
 * - The caller's key is refused: the last batch carries the end KEY_REVOKED, so that the reader does not come back.
 * - The caller leaves or the server closes: throws an AbortError, so that the reader resumes at another replica.
 *
 * After both, the connection closes soon, even if its reader is stalled. A limit of streams may end a stream like the
 * second. Throws STREAM_LIMIT before anything is started or read.
 */
export async function* streamTurn(
  ctx: StreamContext,
  input: StreamTurnInput,
): AsyncGenerator<string, void, undefined> {
  const { encode } = ctx;
  const { turnId, start, check } = input;
  let lastSeq = input.afterSeq;
  let isOver = false;
  let batches: ReturnType<typeof followTurn> | undefined;
  // Neither `for await` nor a local keeps a batch: a suspended generator holds its locals, and a reader may stall.
  const take = ({ value }: IteratorResult<TurnBatch, void>): TurnBatch => {
    if (value === undefined) throw new Error("the batches of a turn ended without its end");
    lastSeq = value.lastSeq;
    isOver = value.end !== undefined;
    return value;
  };
  const watch = new CallerWatch(ctx, input.signal);
  let counted: Disposable | undefined;
  try {
    counted = countStream(ctx, turnId, watch);
    let live: LiveTurn | undefined;
    if (check) await abortable(check(), watch.signal);
    if (start) {
      ({ live } = await abortable(start(), watch.signal));
      if (!(await hasEventSoon(live))) yield encode(turnId, lastSeq, { lastSeq, events: [] });
    }
    const { productId, connection: room } = ctx;
    const push = (batch: TurnBatch) => {
      room?.write(encode(turnId, lastSeq, batch));
      lastSeq = batch.lastSeq;
    };
    batches = followTurn(ctx.call, {
      productId,
      turnId,
      afterSeq: lastSeq,
      signal: watch.signal,
      room,
      push: room && push,
      takeLive: () => {
        const taken = live;
        live = undefined;
        return taken;
      },
    });
    for (;;) {
      // The cursor is read before the batch moves it.
      yield encode(turnId, lastSeq, take(await batches.next()));
      if (isOver) return;
    }
  } catch (error) {
    // Once the watch has aborted the read, any error is a result of the abort. The watch has the reason.
    if (!watch.signal.aborted) throw error;
  } finally {
    watch[Symbol.dispose]();
    counted?.[Symbol.dispose]();
    await batches?.return();
  }
  ctx.connection?.closeSoon();
  if (watch.refused === undefined) throw new DOMException("the stream continues elsewhere", "AbortError");
  yield encode(turnId, lastSeq, toRefusedBatch(watch.refused, lastSeq));
}

function countStream(ctx: StreamContext, turnId: string, watch: CallerWatch): Disposable {
  const { call, productId, policy, maxOpenStreams } = ctx;
  const limits = {
    perProduct: policy.maxOpenStreams ?? maxOpenStreams,
    perKey: policy.maxOpenStreamsPerKey,
  };
  const end = () => watch.handleEvent();
  return call.openStreams.open({ productId, keyId: call.actor.id, turnId, limits, end });
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
