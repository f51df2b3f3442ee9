import { findViolatedConstraint } from "../../../db/postgres-error.ts";
import {
  beginTurn,
  deleteStartingTurn,
  findTurn,
  insertTurn,
  type BegunTurn,
  type NewTurn,
  type TurnRow,
} from "../../../db/turns.ts";
import type { Config } from "../../config/config.ts";
import { describeHolds } from "../../engines/access/hold-view.ts";
import { DomainError, toErrorMessage } from "../../errors.ts";
import { toLimitError } from "./limit-error.ts";
import { RESERVE_AHEAD, type LiveTurn, type TurnRecord } from "../model/live-turn.ts";
import type { TurnContext } from "../turn-context.ts";

/** Another turn of this id is on record. */
export class TurnTakenError extends Error {
  /** undefined: another start wrote it a moment ago. */
  readonly row: TurnRow | undefined;

  constructor(row?: TurnRow) {
    super("a turn of this id is on record already");
    this.row = row;
  }
}

export interface RecordContext extends TurnContext {
  config: Pick<Config, "turnLogBytesPerHour" | "maxLiveTurns">;
}

const TASK_RETRY_MS = 1_000;
const ERASE_RETRY_MS = 1_000;
const ERASE_ATTEMPTS = 300;

/**
 * Reads the user's engine, and in the same statement writes the turn's row if that engine runs. `startedAt` undefined:
 * no row was written. Throws TURN_IN_PROGRESS when the task has a live turn, STREAM_LIMIT and RATE_LIMITED when a limit
 * of the product is reached, and TurnTakenError.
 */
export async function recordIfRunning(
  ctx: RecordContext,
  turn: LiveTurn,
  expectGeneration: number | undefined,
): Promise<BegunTurn> {
  const row = toNewRow(ctx, turn);
  const { turnLogBytesPerHour: logBytesPerHour, maxLiveTurns: liveTurns } = ctx.config;
  const options = { expectGeneration, defaults: { logBytesPerHour, liveTurns } };
  const begun = await insert(ctx, row, () => beginTurn(ctx.raw, row, options));
  if (begun.startedAt !== undefined) return begun;
  // A start of a turn that exists joins it, whatever the limits.
  await requireNotTaken(ctx, turn);
  if (begun.exceeded !== undefined) throw toLimitError(begun.exceeded, begun.limits);
  return begun;
}

async function requireNotTaken(ctx: TurnContext, turn: LiveTurn): Promise<void> {
  const row = await findTurn(ctx.raw, turn.input);
  if (row === undefined) return;
  if (!isLeftover(ctx, row)) throw new TurnTakenError(row);
  await deleteStartingTurn(ctx.raw, row);
}

/**
 * For a row without a live turn here: whether a start of this replica left it. That start failed before it sent
 * anything, and could not erase the row.
 */
export function isLeftover(ctx: Pick<TurnContext, "replica">, row: TurnRow): boolean {
  return row.status === "starting" && row.ownerReplica === ctx.replica.id;
}

/** Writes the turn's row for an engine, in whatever state it is. Throws TURN_IN_PROGRESS and TurnTakenError. */
export async function recordTurn(
  ctx: TurnContext,
  turn: LiveTurn,
  engine: Omit<TurnRecord, "startedAt">,
): Promise<TurnRecord> {
  const row = { ...toNewRow(ctx, turn), ...engine };
  const startedAt = await insert(ctx, row, () => insertTurn(ctx.raw, row));
  if (startedAt === undefined) throw new TurnTakenError();
  return { ...engine, startedAt };
}

function toNewRow(ctx: TurnContext, turn: LiveTurn): Omit<NewTurn, "engineId" | "generation"> {
  return { ...turn.input, ownerReplica: ctx.replica.id, reservedSeq: RESERVE_AHEAD };
}

async function insert<Result>(
  ctx: TurnContext,
  row: StartingRow & Pick<TurnRow, "userId" | "taskId">,
  write: () => Promise<Result>,
): Promise<Result> {
  try {
    return await write();
  } catch (error) {
    if (findViolatedConstraint(error) === "turns_live_task_key") {
      throw taskInProgress(ctx, row, error);
    }
    // The row may have been written all the same. It would keep its task busy.
    void eraseInBackground(ctx, row);
    throw error;
  }
}

/** A task has one turn at a time, and only the turn's end changes that. */
function taskInProgress(
  { turns }: Pick<TurnContext, "turns">,
  task: Pick<TurnRow, "productId" | "userId" | "taskId">,
  cause: unknown,
): DomainError {
  const live = turns.findTask(task);
  const which = live === undefined ? "" : `: ${describeHolds([live.toHoldView()])}`;
  const message = `the task has a turn in progress${which}. Start again after its end, or cancel it`;
  return new DomainError("TURN_IN_PROGRESS", message, { cause, retryAfterMs: TASK_RETRY_MS });
}

/**
 * Deletes the row of a turn that its engine never had, so that the id is free again. False: this failed and is retried
 * in the background. Then write nothing under the turn's fencing token any more.
 */
export async function eraseTurn(ctx: TurnContext, turn: LiveTurn): Promise<boolean> {
  const row = { ...turn.input, ownerReplica: ctx.replica.id };
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
  for (let attempt = 1; attempt <= ERASE_ATTEMPTS && !ctx.turns.isClosed; attempt += 1) {
    try {
      await ctx.clock.sleep(ERASE_RETRY_MS);
      await deleteStartingTurn(ctx.raw, row);
      return;
    } catch (error) {
      ctx.log.warn(
        { turnId: row.turnId, attempt, error: toErrorMessage(error) },
        "the row of a turn that did not start is not erased yet",
      );
    }
  }
}
