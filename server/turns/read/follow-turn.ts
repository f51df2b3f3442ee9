import { readTurnLog } from "../../../db/turn-events.ts";
import { isTurnLogRetired } from "../../../db/turn-partitions.ts";
import { findTurn, type TurnKey, type TurnRow } from "../../../db/turns.ts";
import type { LeaseGuard } from "../../replicas/lease-guard.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { toBatches } from "../log/log-batches.ts";
import { BATCH_MAX_BYTES, type TurnBatch, type TurnGap } from "./turn-batch.ts";
import { ReaderWake } from "./reader-wake.ts";
import { parseEnd, type TurnEnd } from "../model/turn-end.ts";
import type { TurnContext } from "../turn-registry.ts";
import { turnNotFound } from "../model/turn-view.ts";

/** `lease`: a database that hangs ends a reader's look at the log, as it ends everybody's calls. */
export type FollowContext = TurnContext & { lease: Pick<LeaseGuard, "run"> };

export interface FollowTurnInput extends TurnKey {
  /** Everything up to here has been read; 0 for all. */
  afterSeq: number;
  signal: AbortSignal;
}

type Source = TurnKey & Pick<TurnRow, "startedAt">;
/** `wait`: there is nothing new. It begins when it is called: a step that nobody takes leaves no promise behind. */
type Step = { kind: "batches"; batches: TurnBatch[] } | { kind: "wait"; wait: () => Promise<void> };

/** How often a turn that another process owns is looked at. */
const POLL_MS = 1_000;
/** And one whose row this process has written, which it does only for an engine that it can hold at once. */
const OWN_POLL_MS = 20;

/**
 * What a turn has after a cursor, as it comes, up to the end; then it returns. Leaving early has no effect on the
 * turn, and a reader that is slow costs nothing but its cursor.
 *
 * @throws TURN_NOT_FOUND, DATABASE_UNAVAILABLE, the signal's reason, and an AbortError when the replica hands its
 * readers over: then the same read, from the last cursor, is to be made again elsewhere.
 */
export async function* followTurn(
  ctx: FollowContext,
  input: FollowTurnInput,
): AsyncGenerator<TurnBatch, void, void> {
  let cursor = input.afterSeq;
  let live: LiveTurn | undefined;
  using reader = new ReaderWake(input.signal);
  for (;;) {
    ctx.turns.throwIfHandedOver();
    input.signal.throwIfAborted();
    // Kept once found: a turn that has ended is still read to its end from memory.
    live ??= joinLive(ctx, input, reader);
    const step =
      (live && readLive(live, reader, cursor)) ??
      (await ctx.lease.run(async () => readRecorded(ctx, input, cursor)));
    if (step.kind === "wait") {
      await step.wait();
      continue;
    }
    for (const batch of step.batches) {
      cursor = batch.lastSeq;
      yield batch;
      if (batch.end) return;
      // Between the batches of one page there is no other look at them.
      input.signal.throwIfAborted();
    }
  }
}

function joinLive(ctx: TurnContext, key: TurnKey, reader: ReaderWake): LiveTurn | undefined {
  const live = ctx.turns.find(key.productId, key.turnId);
  if (live) reader.join(live);
  return live;
}

/** undefined: it is not written yet, or not ours any more, or what is asked for is in the log alone. */
function readLive(turn: LiveTurn, reader: ReaderWake, cursor: number): Step | undefined {
  if (turn.record === undefined) return undefined;
  const step = turn.read(cursor);
  switch (step.kind) {
    case "batch":
      return { kind: "batches", batches: [step.batch] };
    case "wait":
      return { kind: "wait", wait: async () => reader.next() };
    case "unknown_cursor":
      return unknownCursor(cursor, turn.lastSeq);
    case "log":
      return undefined;
  }
}

async function readRecorded(ctx: TurnContext, input: FollowTurnInput, cursor: number): Promise<Step> {
  // In this order: what ended before it was looked at has all of its events in the log by then.
  const row = await findTurn(ctx.raw, input);
  if (row === undefined) throw turnNotFound();
  const end = row.end === null ? undefined : parseEnd(row.end);
  if (end && cursor >= end.lastSeq) return { kind: "batches", batches: [toLast(end)] };
  const batches = await readPage(ctx, row, cursor);
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

async function readPage(ctx: TurnContext, source: Source, cursor: number): Promise<TurnBatch[]> {
  const { productId, turnId, startedAt } = source;
  const page = { productId, turnId, startedAt, afterSeq: cursor, maxBytes: BATCH_MAX_BYTES };
  return toBatches(await readTurnLog(ctx.raw, page), cursor);
}

/** The log has nothing more, yet the end is further on: something is missing, unless the end comes next. */
async function toGapAndEnd(
  ctx: TurnContext,
  row: TurnRow,
  { cursor, end }: { cursor: number; end: TurnEnd },
): Promise<TurnBatch> {
  if (cursor + 1 >= end.lastSeq) return toLast(end);
  const isRetired = await isTurnLogRetired(ctx.raw, row, ctx.turns.options.config.turnRetentionMs);
  const reason = isRetired ? "retention" : "lost";
  const gap: TurnGap = { fromSeq: cursor + 1, toSeq: end.lastSeq - 1, reason };
  return { ...toLast(end), gap };
}

function toLast(end: TurnEnd): TurnBatch {
  return { lastSeq: end.lastSeq, events: [], end };
}

/** The cursor is of no turn that we know: it is said, and reading goes on from what is the newest. */
function unknownCursor(cursor: number, lastSeq: number): Step {
  const gap: TurnGap = { fromSeq: lastSeq + 1, toSeq: cursor, reason: "unknown_cursor" };
  return { kind: "batches", batches: [{ lastSeq, events: [], gap }] };
}
