import { findViolatedConstraint } from "../../../db/postgres-error.ts";
import {
  beginTurn as beginTurnRow,
  deleteStartingTurn,
  findTurn,
  insertTurn,
  type BegunTurn,
  type NewTurn,
  type TurnRow,
} from "../../../db/turns.ts";
import type { HeldEngine } from "../../engines/access/acquire-engine.ts";
import { DomainError, toErrorMessage } from "../../errors.ts";
import { RESERVE_AHEAD, type LiveTurn } from "../model/live-turn.ts";
import type { TurnContext } from "../turn-registry.ts";

/** There is a turn of this id that is not the one being started. */
export class TurnTakenError extends Error {
  /** undefined: it was not there a moment ago, so somebody else was first. */
  readonly row: TurnRow | undefined;

  constructor(row?: TurnRow) {
    super("there is a turn of this id already");
    this.row = row;
  }
}

const FORGET_RETRY_MS = 1_000;
const FORGET_ATTEMPTS = 300;

/**
 * Writes the turn's row for the engine as it is, and answers with that engine; the row is there when `startedAt` is.
 * Throws TURN_IN_PROGRESS when the task has a live turn, and TurnTakenError.
 */
export async function beginTurn(
  ctx: TurnContext,
  turn: LiveTurn,
  expectGeneration: number | undefined,
): Promise<BegunTurn> {
  const row = toNewRow(ctx, turn);
  const begun = await insert(ctx, row, () => beginTurnRow(ctx.raw, row, expectGeneration));
  if (begun.startedAt === undefined) await requireNotTaken(ctx, turn);
  return begun;
}

async function requireNotTaken(ctx: TurnContext, turn: LiveTurn): Promise<void> {
  const row = await findTurn(ctx.raw, turn);
  if (row === undefined) return;
  if (!isLeftover(ctx, row)) throw new TurnTakenError(row);
  await deleteStartingTurn(ctx.raw, row);
}

/**
 * Of a row that nobody here drives: whether it is ours and in `starting`. Then its start failed before anything was
 * sent, and so did its removal.
 */
export function isLeftover(ctx: TurnContext, row: TurnRow): boolean {
  return row.status === "starting" && row.ownerReplica === ctx.turns.options.replica.id;
}

/** Writes the turn's row for an engine. Throws TURN_IN_PROGRESS and TurnTakenError likewise. */
export async function recordTurn(
  ctx: TurnContext,
  turn: LiveTurn,
  { engineId, generation }: Pick<HeldEngine, "engineId" | "generation">,
): Promise<void> {
  const row = { ...toNewRow(ctx, turn), engineId, generation };
  const startedAt = await insert(ctx, row, () => insertTurn(ctx.raw, row));
  if (startedAt === undefined) throw new TurnTakenError();
  turn.markRecorded({ engineId, generation, startedAt });
}

function toNewRow(ctx: TurnContext, turn: LiveTurn): Omit<NewTurn, "engineId" | "generation"> {
  const { productId, turnId, userId, taskId, fingerprint, fencingToken } = turn;
  const ownerReplica = ctx.turns.options.replica.id;
  return {
    productId,
    turnId,
    userId,
    taskId,
    fingerprint,
    ownerReplica,
    fencingToken,
    reservedSeq: RESERVE_AHEAD,
  };
}

async function insert<Result>(
  ctx: TurnContext,
  row: StartingRow,
  write: () => Promise<Result>,
): Promise<Result> {
  try {
    return await write();
  } catch (error) {
    if (findViolatedConstraint(error) === "turns_live_task_key") {
      throw new DomainError("TURN_IN_PROGRESS", "the task has a turn in progress", { cause: error });
    }
    // It may be there all the same, and would keep its task busy.
    void eraseInBackground(ctx, row);
    throw error;
  }
}

/**
 * Takes back the row of a turn that never reached its engine, so that its id can be used again. False: that is tried
 * again in the background, and nothing may be written under the turn's fence any more.
 */
export async function eraseTurn(ctx: TurnContext, turn: LiveTurn): Promise<boolean> {
  const row = { ...toKey(turn), ownerReplica: ctx.turns.options.replica.id, fencingToken: turn.fencingToken };
  try {
    await deleteStartingTurn(ctx.raw, row);
    return true;
  } catch {
    void eraseInBackground(ctx, row);
    return false;
  }
}

type StartingRow = Parameters<typeof deleteStartingTurn>[1];

async function eraseInBackground(ctx: TurnContext, row: StartingRow): Promise<void> {
  for (let attempt = 1; attempt <= FORGET_ATTEMPTS && !ctx.turns.isClosed; attempt += 1) {
    try {
      await ctx.clock.sleep(FORGET_RETRY_MS);
      await deleteStartingTurn(ctx.raw, row);
      return;
    } catch (error) {
      ctx.log.warn(
        { turnId: row.turnId, attempt, error: toErrorMessage(error) },
        "an unused turn is not erased yet",
      );
    }
  }
}

function toKey(turn: LiveTurn): Pick<StartingRow, "productId" | "turnId"> {
  return { productId: turn.productId, turnId: turn.turnId };
}
