import { findViolatedConstraint } from "../../db/postgres-error.ts";
import { deleteStartingTurn, insertTurn, type NewTurn } from "../../db/turns.ts";
import type { EngineUse } from "../engines/use-engine.ts";
import { DomainError, toErrorMessage } from "../errors.ts";
import { RESERVE_AHEAD, type LiveTurn } from "./live-turn.ts";
import type { TurnContext } from "./turn-registry.ts";

/** Another replica has the turn. */
export class TurnTakenError extends Error {}

const FORGET_RETRY_MS = 1_000;
const FORGET_ATTEMPTS = 300;

/** Writes the turn's row. Throws TURN_IN_PROGRESS when the task has a live turn, and TurnTakenError. */
export async function recordTurn(ctx: TurnContext, turn: LiveTurn, use: EngineUse): Promise<void> {
  const startedAt = await insert(ctx, {
    productId: turn.productId,
    turnId: turn.turnId,
    userId: turn.userId,
    engineId: use.engineId,
    generation: use.generation,
    taskId: turn.taskId,
    fingerprint: turn.fingerprint,
    ownerReplica: ctx.turns.options.replica.id,
    fence: turn.fence,
    reservedSeq: RESERVE_AHEAD,
  });
  if (startedAt === undefined) throw new TurnTakenError("the turn has another owner");
  turn.markRecorded({ engineId: use.engineId, generation: use.generation, startedAt });
}

async function insert(ctx: TurnContext, row: NewTurn): Promise<string | undefined> {
  try {
    return await insertTurn(ctx.raw, row);
  } catch (error) {
    if (findViolatedConstraint(error) === "turns_live_task_key") {
      throw new DomainError("TURN_IN_PROGRESS", "the task has a turn in progress", { cause: error });
    }
    // It may be there all the same, and would keep its task busy.
    void eraseInBackground(ctx, row);
    throw error;
  }
}

/** Takes back the row of a turn that never reached its engine, so that its id can be used again. */
export async function eraseTurn(ctx: TurnContext, turn: LiveTurn): Promise<void> {
  const row = { ...toKey(turn), ownerReplica: ctx.turns.options.replica.id, fence: turn.fence };
  try {
    await deleteStartingTurn(ctx.raw, row);
  } catch {
    // Tried again, and told about, in the background.
    void eraseInBackground(ctx, row);
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
