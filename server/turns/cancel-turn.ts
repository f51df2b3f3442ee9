import { isDatabaseUnavailable } from "../../db/postgres-error.ts";
import { findTurn, takeOverTurn, type TurnKey } from "../../db/turns.ts";
import { DomainError } from "../errors.ts";
import { getTurn } from "./get-turn.ts";
import type { LiveTurn } from "./live-turn.ts";
import { toEndCause } from "./turn-end.ts";
import type { TurnContext } from "./turn-registry.ts";
import { turnNotFound, type Turn } from "./turn-view.ts";

const WRITE_TIMEOUT_MS = 10_000;
const ATTEMPTS = 5;

const CANCELLED = toEndCause("cancelled", "CANCELLED", {
  message: "the turn was cancelled; its engine has no way to be told",
});

/**
 * Ends our reading of a turn and answers what it is then; one that has ended stays as it is. The engine may go on.
 *
 * @throws TURN_NOT_FOUND, and DATABASE_UNAVAILABLE when the end was decided but could not be written yet.
 */
export async function cancelTurn(ctx: TurnContext, input: TurnKey): Promise<Turn> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const live = ctx.turns.find(input.productId, input.turnId);
    if (live && (await cancelLive(ctx, live))) break;
    if (await cancelRecorded(ctx, input)) break;
  }
  return getTurn(ctx, input);
}

/** False: it never came to be, or it is a second start of a turn that is recorded already. */
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
  if (turn.isSettled) return true;
  throw new DomainError("DATABASE_UNAVAILABLE", "the turn is cancelled, which could not be written yet", {
    retryAfterMs: 1_000,
  });
}

/**
 * Of another process, which stops when it next tries to write. False: meanwhile it changed hands, or was begun here,
 * and is to be looked for again.
 */
async function cancelRecorded(ctx: TurnContext, input: TurnKey): Promise<boolean> {
  const row = await findTurn(ctx.raw, input);
  if (row === undefined) throw turnNotFound();
  if (row.end !== null) return true;
  if (ctx.turns.findOwn(row)) return false;
  return takeOverTurn(ctx.raw, { row, status: CANCELLED.status, end: JSON.stringify(CANCELLED) });
}
