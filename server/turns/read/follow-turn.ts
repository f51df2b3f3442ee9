import { readTurnLog } from "../../../db/turn-events.ts";
import { isTurnLogRetired } from "../../../db/turn-partitions.ts";
import { findTurn, type TurnKey, type TurnRow } from "../../../db/turns.ts";
import type { Config } from "../../config/config.ts";
import type { LeaseGuard } from "../../replicas/lease-guard.ts";
import { abortable } from "../../time/abortable.ts";
import { toBatches } from "../log/log-batches.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import type { TurnEnd } from "../model/turn-end.ts";
import { turnNotFound } from "../model/turn-view.ts";
import type { TurnContext } from "../turn-context.ts";
import type { ReaderRoom } from "./reader-room.ts";
import { ReaderWake } from "./reader-wake.ts";
import { BATCH_MAX_BYTES, type TurnBatch, type TurnGap } from "./turn-batch.ts";

export interface FollowContext extends Pick<TurnContext, "raw" | "clock" | "turns" | "seals"> {
  config: Pick<Config, "turnRetentionMs">;
  /** Ends a reader's query when the database hangs, as for all other calls. */
  lease: Pick<LeaseGuard, "run">;
}

export interface FollowTurnInput extends TurnKey {
  /** The reader's cursor; 0 reads everything. */
  afterSeq: number;
  signal: AbortSignal;
  /**
   * Gives the turn of `startTurn`'s result, so that it need not be looked up again. A function that gives it up: an ended
   * turn must leave memory even if its reader is stalled.
   */
  takeLive?: (() => LiveTurn | undefined) | undefined;
  /** undefined: there is always room. */
  room?: ReaderRoom | undefined;
  /**
   * Sends a batch to the reader at once. While the reader waits for a live turn, new events go this way: a step of a
   * generator for each would cost more than the rest of the work. The first batch and the end are always yielded.
   */
  push?: ((batch: TurnBatch) => void) | undefined;
}

/** `wait` is a function, so that a step that is never taken leaves no promise behind. */
type Step = { kind: "batches"; batches: TurnBatch[] } | { kind: "wait"; wait: () => Promise<void> };

/** How often the log of another replica's turn is read. */
const POLL_MS = 1_000;
/** The same while this replica starts the turn: its row is written, and it will be live within moments. */
const OWN_POLL_MS = 20;

/**
 * The batches of a turn after a cursor, as they come, up to the end; then it returns. A reader that leaves has no effect
 * on the turn, and a slow reader costs only its cursor.
 *
 * @throws TURN_NOT_FOUND, DATABASE_UNAVAILABLE, the signal's reason, and an AbortError when the replica hands its
 * readers over: then read on from the last cursor at another replica.
 */
export async function* followTurn(
  ctx: FollowContext,
  input: FollowTurnInput,
): AsyncGenerator<TurnBatch, void, void> {
  let cursor = input.afterSeq;
  let isOver = false;
  let live = input.takeLive?.();
  const { room, push } = input;
  let hasYielded = false;
  const take = (batches: TurnBatch[]): TurnBatch => {
    const batch = batches.shift();
    if (batch === undefined) throw new Error("a step without a batch");
    cursor = batch.lastSeq;
    isOver = batch.end !== undefined;
    hasYielded = true;
    return batch;
  };
  const maySend = () => !input.signal.aborted && room?.hasRoom !== false;
  const pushNewEvents = (): boolean => {
    if (!live || !push || !hasYielded || ctx.turns.isHandedOver || !maySend()) return false;
    const step = live.read(cursor);
    if (step.kind !== "batch" || step.batch.end !== undefined) return step.kind === "wait";
    try {
      push(step.batch);
    } catch {
      // The batch is yielded instead, so that the error reaches the reader and not the turn.
      return false;
    }
    cursor = step.batch.lastSeq;
    // Without room the reader must leave its turn, and with more news it reads on.
    return maySend() && live.read(cursor).kind === "wait";
  };
  using reader = new ReaderWake(input.signal);
  if (live) reader.join(live);
  for (;;) {
    if (isOver) return;
    if (room && !room.hasRoom) {
      // A reader that waits here, perhaps for long, must not keep its turn in memory. It finds the turn again, or the log.
      const left = live && new WeakRef(live);
      live = undefined;
      live = await rejoinWithRoom(room, reader, { left, signal: input.signal });
    }
    ctx.turns.throwIfHandedOver();
    input.signal.throwIfAborted();
    // Kept once found: a turn that has ended is still read to its end from memory.
    live ??= joinLive(ctx, input, reader);
    const step =
      (live && readLive(live, cursor, async () => reader.next(pushNewEvents))) ??
      (await ctx.lease.run(async () => readRecorded(ctx, input, cursor)));
    if (step.kind === "wait") {
      room?.begin();
      await step.wait();
      continue;
    }
    // The signal may abort while the reader handles a batch. Without room, what is left is read again later.
    while (step.batches.length > 0 && maySend()) yield take(step.batches);
    step.batches.length = 0;
  }
}

/** Leaves the turn until there is room. undefined: the turn has left memory, or there was none. */
async function rejoinWithRoom(
  room: ReaderRoom,
  reader: ReaderWake,
  { left, signal }: { left: WeakRef<LiveTurn> | undefined; signal: AbortSignal },
): Promise<LiveTurn | undefined> {
  reader.leave();
  await abortable(room.untilRoom(), signal);
  const live = left?.deref();
  if (live) reader.join(live);
  return live;
}

function joinLive(ctx: FollowContext, key: TurnKey, reader: ReaderWake): LiveTurn | undefined {
  const live = ctx.turns.find(key.productId, key.turnId);
  if (live) reader.join(live);
  return live;
}

/** undefined: read the log, because the turn is not recorded yet, is lost, or its window begins after the cursor. */
function readLive(turn: LiveTurn, cursor: number, wait: () => Promise<void>): Step | undefined {
  if (turn.record === undefined) return undefined;
  const step = turn.read(cursor);
  switch (step.kind) {
    case "batch":
      return { kind: "batches", batches: [step.batch] };
    case "wait":
      return { kind: "wait", wait };
    case "unknown_cursor":
      return unknownCursor(cursor, turn.lastSeq);
    case "log":
      return undefined;
  }
}

async function readRecorded(ctx: FollowContext, input: FollowTurnInput, cursor: number): Promise<Step> {
  // The row before the log: if the row has an end, the log has all events by then.
  const row = await findTurn(ctx.raw, input);
  if (row === undefined) throw turnNotFound();
  const end = (await ctx.seals.readEnd(row)) ?? undefined;
  if (end && cursor >= end.lastSeq) return { kind: "batches", batches: [toLast(end)] };
  const page = { ...input, startedAt: row.startedAt, afterSeq: cursor, maxBytes: BATCH_MAX_BYTES };
  const batches = toBatches(await ctx.seals.open(input, await readTurnLog(ctx.raw, page)), cursor);
  const last = batches.at(-1);
  if (end && last?.lastSeq === end.lastSeq - 1) {
    return { kind: "batches", batches: [...batches.slice(0, -1), { ...last, lastSeq: end.lastSeq, end }] };
  }
  if (last) return { kind: "batches", batches };
  if (end) return { kind: "batches", batches: [await toGapAndEnd(ctx, row, { cursor, end })] };
  if (cursor > row.reservedSeq) return unknownCursor(cursor, row.lastSeq);
  const pollMs = ctx.turns.findOwn(row) ? OWN_POLL_MS : POLL_MS;
  return { kind: "wait", wait: async () => ctx.clock.sleep(pollMs, input.signal) };
}

/** The log has no events after the cursor. Unless the end comes next, events are missing. */
async function toGapAndEnd(
  ctx: FollowContext,
  row: TurnRow,
  { cursor, end }: { cursor: number; end: TurnEnd },
): Promise<TurnBatch> {
  if (cursor + 1 >= end.lastSeq) return toLast(end);
  const isRetired = await isTurnLogRetired(ctx.raw, row, ctx.config.turnRetentionMs);
  const reason = isRetired ? "retention" : "lost";
  const gap: TurnGap = { fromSeq: cursor + 1, toSeq: end.lastSeq - 1, reason };
  return { ...toLast(end), gap };
}

function toLast(end: TurnEnd): TurnBatch {
  return { lastSeq: end.lastSeq, events: [], end };
}

/** This turn never gave that cursor out. The reader gets a gap, and reads on from the newest event. */
function unknownCursor(cursor: number, lastSeq: number): Step {
  const gap: TurnGap = { fromSeq: lastSeq + 1, toSeq: cursor, reason: "unknown_cursor" };
  return { kind: "batches", batches: [{ lastSeq, events: [], gap }] };
}
