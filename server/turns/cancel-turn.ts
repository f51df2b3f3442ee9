import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import { findTurn, takeOverTurn, type TurnKey } from "../../db/turns.ts";
import { DomainError } from "../errors.ts";
import { getTurn } from "./read/get-turn.ts";
import type { LiveTurn } from "./model/live-turn.ts";
import { isLeftover } from "./start/record-turn.ts";
import { CANCELLED, CANCELLED_UNSENT } from "./model/turn-end.ts";
import type { TurnContext } from "./turn-registry.ts";
import { turnNotFound, type Turn } from "./model/turn-view.ts";

const WRITE_TIMEOUT_MS = 10_000;
const ATTEMPTS = 5;

/**
 * Ends our reading of a turn and answers what it is then; one that has ended stays as it is. The engine may go on.
 *
 * @throws TURN_NOT_FOUND, and DATABASE_UNAVAILABLE when the end was decided but could not be written yet.
 */
export async function cancelTurn(ctx: TurnContext, input: TurnKey): Promise<Turn> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const live = ctx.turns.find(input.productId, input.turnId);
    const isEnded = (live && (await cancelLive(ctx, live))) || (await cancelRecorded(ctx, input));
    if (isEnded) return getTurn(ctx, input);
  }
  throw new DomainError(
    "DATABASE_UNAVAILABLE",
    "the turn was started anew each time it was to be cancelled",
    {
      retryAfterMs: 1_000,
    },
  );
}

/** False: it never came to be, its engine refused it, or it is a second start of a turn that is recorded already. */
async function cancelLive(ctx: TurnContext, turn: LiveTurn): Promise<boolean> {
  // Stopped first: one that still waits for its engine to boot would be recorded only after that.
  turn.stop(CANCELLED);
  try {
    await turn.untilRecorded();
  } catch (error) {
    // Whoever started it was told why; where that is not known, neither is whether there is a turn.
    if (isDatabaseUnavailable(error)) throw error;
    return false;
  }
  const patience = new AbortController();
  const late = ctx.clock.sleep(WRITE_TIMEOUT_MS, patience.signal).catch(() => {
    // It was written in time.
  });
  await Promise.race([turn.untilSettled(), late]);
  patience.abort();
  // One that its engine refused has no end, and its id may have been used again since.
  if (turn.isSettled) return !turn.isLost;
  throw new DomainError("DATABASE_UNAVAILABLE", "the turn is cancelled, which could not be written yet", {
    retryAfterMs: 1_000,
  });
}

/**
 * Of another process, which stops when it next tries to write, or left by a start of ours that failed. False: it
 * changed hands, or was begun here meanwhile, and is to be looked for again.
 */
async function cancelRecorded(ctx: TurnContext, input: TurnKey): Promise<boolean> {
  const row = await findTurn(ctx.raw, input);
  if (row === undefined) {
    if (ctx.turns.find(input.productId, input.turnId)) return false;
    throw turnNotFound();
  }
  if (row.end !== null) return true;
  if (ctx.turns.findOwn(row)) return false;
  const isUnsent = isLeftover(ctx, row);
  const end = isUnsent ? CANCELLED_UNSENT : CANCELLED;
  return takeOverTurn(ctx.raw, { row, status: end.status, end: JSON.stringify(end), isUnsent });
}
