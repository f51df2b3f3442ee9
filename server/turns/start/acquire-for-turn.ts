import { holdEngine, isBlocked, toWaitError } from "../../engines/access/hold-engine.ts";
import type { HeldEngine, HoldContext, HoldInput } from "../../engines/access/hold-engine.ts";
import { engineNotFound } from "../../engines/model/absent-engine-errors.ts";
import { DomainError } from "../../errors.ts";
import { Deadline } from "../../time/deadline.ts";
import type { LiveTurn, TurnRecord } from "../model/live-turn.ts";
import type { TurnContext } from "../turn-context.ts";
import { eraseTurn, recordIfRunning, recordTurn } from "./record-turn.ts";
import { toStopError } from "./stop-error.ts";

type AcquireContext = TurnContext & HoldContext;

export interface AcquireForTurnInput extends Pick<HoldInput, "expectGeneration"> {
  /** How long to wait for a boot or a closed gate. */
  timeoutMs: number;
}

/** The turn's row, and the engine that it is for. `held` undefined: the turn was cancelled before it had the engine. */
export interface AcquiredTurn {
  record: TurnRecord;
  held: HeldEngine | undefined;
}

/**
 * Holds the engine of the turn's user and writes the turn's row: one round trip to the database if the engine runs.
 * A row is erased before its engine is waited for: after a crash it would look as if the engine might have the turn.
 *
 * @throws ENGINE_NOT_FOUND, what `holdEngine` throws, TURN_IN_PROGRESS, TurnTakenError, DEADLINE_EXCEEDED, and for a
 * turn that was stopped what `toStopError` makes of the cause.
 */
export async function acquireForTurn(
  ctx: AcquireContext,
  turn: LiveTurn,
  input: AcquireForTurnInput,
): Promise<AcquiredTurn> {
  using deadline = new Deadline(input.timeoutMs, [turn.stopSignal]);
  try {
    for (;;) {
      const acquired = await tryAcquire(ctx, { ...input, turn, signal: deadline.signal });
      if (acquired) return acquired;
    }
  } catch (error) {
    const failure = toWaitError(error, deadline, input.timeoutMs);
    throw turn.stopCause && isAborted(failure) ? toStopError(turn.stopCause) : failure;
  }
}

interface Attempt extends Pick<HoldInput, "expectGeneration"> {
  turn: LiveTurn;
  signal: AbortSignal;
}
interface SeenEngine extends Attempt, HoldInput {
  /** undefined: no row is written. */
  startedAt: string | undefined;
}

/** undefined: the engine was waited for, or an operation changed it. No row is left, so try again. */
async function tryAcquire(ctx: AcquireContext, attempt: Attempt): Promise<AcquiredTurn | undefined> {
  const { turn, expectGeneration, signal } = attempt;
  const { gateChanges } = ctx.holds;
  // The signal does not cut this short: what a stop means depends on whether the row was written. So a database error
  // takes precedence over the stop and the deadline.
  const { engine, startedAt } = await recordIfRunning(ctx, turn, expectGeneration);
  turn.markNew();
  if (engine === undefined) {
    signal.throwIfAborted();
    throw engineNotFound();
  }
  const isTooEarly = startedAt !== undefined && !signal.aborted && isBlocked(ctx, engine);
  if (isTooEarly) await requireErased(ctx, turn);
  return holdSeen(ctx, { ...attempt, engine, gateChanges, startedAt: isTooEarly ? undefined : startedAt });
}

async function holdSeen(ctx: AcquireContext, seen: SeenEngine): Promise<AcquiredTurn | undefined> {
  const { turn, engine, startedAt, signal } = seen;
  const target = { engineId: engine.id, generation: engine.generation };
  try {
    signal.throwIfAborted();
    const held = await holdEngine(ctx, seen, signal);
    if (held && startedAt !== undefined) return { record: { ...target, startedAt }, held };
    held?.release();
  } catch (error) {
    if (isAborted(error) && turn.stopCause?.reason === "CANCELLED") {
      // A cancelled turn is on record although its engine never had it: cancel and later starts of its id find it.
      const record = startedAt === undefined ? await recordTurn(ctx, turn, target) : { ...target, startedAt };
      return { record, held: undefined };
    }
    if (startedAt !== undefined) await eraseTurn(ctx, turn);
    throw error;
  }
  if (startedAt !== undefined) await requireErased(ctx, turn);
  return undefined;
}

/** Erases the row, so that it can be written again. */
async function requireErased(ctx: TurnContext, turn: LiveTurn): Promise<void> {
  if (await eraseTurn(ctx, turn)) return;
  throw new DomainError("DATABASE_UNAVAILABLE", "the turn could not be recorded", { retryAfterMs: 1_000 });
}

function isAborted(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
