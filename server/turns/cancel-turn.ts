import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import { findTurn, endTurnOfOther, type TurnKey } from "../../db/turns.ts";
import { DomainError } from "../errors.ts";
import type { LiveTurn } from "./model/live-turn.ts";
import { CANCELLED, CANCELLED_UNSENT } from "./model/turn-end.ts";
import { turnNotFound, type Turn } from "./model/turn-view.ts";
import { getTurn } from "./read/get-turn.ts";
import { isLeftover } from "./start/record-turn.ts";
import type { TurnContext } from "./turn-context.ts";
import { stopLeftTurn, type StopLeftContext } from "./upstream/stop-left-turn.ts";

type CancelContext = Pick<TurnContext, "raw" | "turns" | "clock" | "replica" | "seals"> & StopLeftContext;

/** For the engine's answer, the last event of its stream, and the commit. The first two take 6 s at most. */
const END_TIMEOUT_MS = 16_000;
const ATTEMPTS = 5;

/**
 * Ends a turn, and returns it. The engine is asked to end it too; the end says whether the engine may go on. If the
 * engine completes the turn first, the turn is completed. A turn that has ended stays as it is, and the engine is asked
 * again if it may still work on that turn.
 *
 * @throws TURN_NOT_FOUND, and DATABASE_UNAVAILABLE when the end is decided but could not be committed yet.
 */
export async function cancelTurn(ctx: CancelContext, input: TurnKey): Promise<Turn> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const live = ctx.turns.find(input.productId, input.turnId);
    const isEnded = (live && (await cancelLive(ctx, live))) || (await cancelRecorded(ctx, input));
    if (isEnded) return getTurn(ctx, input);
  }
  const message = `the turn was started again during each of ${ATTEMPTS} attempts to cancel it; try again`;
  throw new DomainError("DATABASE_UNAVAILABLE", message, { retryAfterMs: 1_000 });
}

/** False: the turn was refused or lost, or another turn of this id is on record. Then the row decides. */
async function cancelLive(ctx: CancelContext, turn: LiveTurn): Promise<boolean> {
  // Stop before the wait: a turn that waits for its engine would be recorded only after the boot.
  turn.stop(CANCELLED);
  try {
    await turn.until("recorded");
  } catch (error) {
    // The callers of start get the refusal. But after a database error it is unknown whether the row exists.
    if (isDatabaseUnavailable(error)) throw error;
    return false;
  }
  const committed = new AbortController();
  const timeout = ctx.clock.sleep(END_TIMEOUT_MS, committed.signal).catch(() => {
    // The turn was over in time.
  });
  await Promise.race([turn.until("over"), timeout]);
  committed.abort();
  // A turn that its engine refused has no end, and its id may belong to a new turn already.
  if (turn.isOver) return turn.state === "ended";
  throw new DomainError("DATABASE_UNAVAILABLE", "the turn is cancelled, and its end is not committed yet", {
    retryAfterMs: 1_000,
  });
}

/**
 * For a turn of another replica, which stops at its next commit, or a row that a failed start of ours left.
 * False: the turn has a new owner or is live here by now, so look for it again.
 */
async function cancelRecorded(ctx: CancelContext, input: TurnKey): Promise<boolean> {
  const row = await findTurn(ctx.raw, input);
  if (row === undefined) {
    if (ctx.turns.find(input.productId, input.turnId)) return false;
    throw turnNotFound();
  }
  if (row.end !== null) {
    await stopLeftTurn(ctx, row);
    return true;
  }
  if (ctx.turns.findOwn(row)) return false;
  const isUnsent = isLeftover(ctx, row);
  const end = isUnsent ? CANCELLED_UNSENT : CANCELLED;
  return endTurnOfOther(ctx.raw, { row, status: end.status, end: JSON.stringify(end), isUnsent });
}
