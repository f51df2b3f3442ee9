import type { TurnLimits } from "../../../db/turns.ts";
import type { FullVolumes } from "../../engines/access/full-volumes.ts";
import { holdEngine, isBlocked, toWaitError } from "../../engines/access/hold-engine.ts";
import type { HeldEngine, HoldContext, HoldInput, Wait } from "../../engines/access/hold-engine.ts";
import { engineNotFound } from "../../engines/model/absent-engine-errors.ts";
import { DomainError } from "../../errors.ts";
import { isAbortError } from "../../time/abortable.ts";
import { Deadline } from "../../time/deadline.ts";
import type { LiveTurn, TurnRecord } from "../model/live-turn.ts";
import type { TurnContext } from "../turn-context.ts";
import { tooManyWaiting } from "./limit-error.ts";
import { eraseTurn, recordIfRunning, recordTurn, type RecordContext } from "./record-turn.ts";
import { toStopError } from "./stop-error.ts";

type AcquireContext = RecordContext & HoldContext & { fullVolumes: Pick<FullVolumes, "requireRoom"> };

export interface AcquireForTurnInput extends Pick<HoldInput, "expectGeneration"> {
  /** How long to wait for a boot or a closed gate. */
  timeoutMs: number;
}

/** The turn's row and its engine. `held` is undefined if the turn was cancelled before it held the engine. */
export interface AcquiredTurn {
  record: TurnRecord;
  held: HeldEngine | undefined;
}

/**
 * Holds the engine of the turn's user and writes the turn's row. If the engine runs, this takes one round trip to the
 * database. Otherwise the row is erased before the wait for the engine. After a crash, a row that stayed would mean
 * that the engine may have the turn.
 *
 * @throws ENGINE_NOT_FOUND, QUOTA_EXCEEDED, what `holdEngine` throws, TURN_IN_PROGRESS, STREAM_LIMIT, RATE_LIMITED,
 *   TurnTakenError, DEADLINE_EXCEEDED. For a turn that was stopped: the result of `toStopError`.
 */
export async function acquireForTurn(
  ctx: AcquireContext,
  turn: LiveTurn,
  input: AcquireForTurnInput,
): Promise<AcquiredTurn> {
  using deadline = new Deadline(input.timeoutMs, [turn.stopSignal]);
  const wait: Wait = { deadline, timeoutMs: input.timeoutMs, engineId: undefined };
  try {
    for (;;) {
      const acquired = await tryAcquire(ctx, { ...input, turn, signal: deadline.signal }, wait);
      if (acquired) return acquired;
    }
  } catch (error) {
    const failure = toWaitError(ctx, error, wait);
    throw turn.stopCause && isAbortError(failure) ? toStopError(turn.stopCause) : failure;
  }
}

interface Attempt extends Pick<HoldInput, "expectGeneration"> {
  turn: LiveTurn;
  signal: AbortSignal;
}
interface ReadEngine extends Attempt, HoldInput {
  /** When the turn's row was written; undefined if the turn has no row. */
  startedAt: string | undefined;
}

/** Returns undefined after a wait for the engine, or after an operation changed the engine. The turn then has no row. */
async function tryAcquire(
  ctx: AcquireContext,
  attempt: Attempt,
  wait: Wait,
): Promise<AcquiredTurn | undefined> {
  const { turn, expectGeneration, signal } = attempt;
  const { gateChanges } = ctx.holds;
  // The signal does not abort this statement, because the effect of a stop depends on whether the row was written. A
  // database error is therefore thrown even if the turn was stopped or the deadline has passed.
  const { engine, startedAt, limits } = await recordIfRunning(ctx, turn, expectGeneration);
  turn.markNew();
  if (engine === undefined) {
    signal.throwIfAborted();
    throw engineNotFound();
  }
  wait.engineId = engine.id;
  const mustWait = startedAt !== undefined && !signal.aborted && isBlocked(ctx, engine);
  if (mustWait) await requireErased(ctx, turn);
  using _place = mustWait || startedAt === undefined ? takeWaitPlace(ctx, turn, limits) : undefined;
  return await holdReadEngine(ctx, {
    ...attempt,
    holder: turn,
    engine,
    gateChanges,
    startedAt: mustWait ? undefined : startedAt,
  });
}

function takeWaitPlace(
  { turns }: Pick<TurnContext, "turns">,
  turn: LiveTurn,
  limits: TurnLimits,
): Disposable {
  const place = turns.beginWait(turn.input.productId, limits.liveTurns);
  if (place === undefined) throw tooManyWaiting(limits);
  return place;
}

async function holdReadEngine(ctx: AcquireContext, read: ReadEngine): Promise<AcquiredTurn | undefined> {
  const { turn, engine, startedAt, signal } = read;
  const target = { engineId: engine.id, generation: engine.generation };
  try {
    signal.throwIfAborted();
    ctx.fullVolumes.requireRoom(engine.id);
    const held = await holdEngine(ctx, read, signal);
    if (held && startedAt !== undefined) return { record: { ...target, startedAt }, held };
    held?.release();
  } catch (error) {
    if (isAbortError(error) && turn.stopCause?.reason === "CANCELLED") {
      // A cancelled turn gets a row although no engine got the turn. Later cancels and starts with this id find the row.
      const record = startedAt === undefined ? await recordTurn(ctx, turn, target) : { ...target, startedAt };
      return { record, held: undefined };
    }
    if (startedAt !== undefined) await eraseTurn(ctx, turn);
    throw error;
  }
  if (startedAt !== undefined) await requireErased(ctx, turn);
  return undefined;
}

/** Erases the row, so that a later attempt can write it again. */
async function requireErased(ctx: TurnContext, turn: LiveTurn): Promise<void> {
  if (await eraseTurn(ctx, turn)) return;
  throw new DomainError("DATABASE_UNAVAILABLE", "the database could not record the turn: start it again", {
    retryAfterMs: 1_000,
  });
}
