import type { BegunTurn, TurnRow, TurnStatus } from "../../../db/turns.ts";
import type { HeldEngine } from "../../engines/access/acquire-engine.ts";
import { DomainError } from "../../errors.ts";
import { driveTurn, endCancelled, toStopError } from "../upstream/run-turn.ts";
import { ExecuteBody, type ExecuteRequest } from "../../engine-contract/execute-body.ts";
import { toFingerprint } from "../../idempotency/fingerprint.ts";
import { beginTurn, eraseTurn, recordTurn, TurnTakenError } from "./record-turn.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import type { EndCause } from "../model/turn-end.ts";
import type { TurnContext } from "../turn-registry.ts";

export interface StartTurnInput {
  productId: string;
  /** The caller's, and its idempotency key within the product. */
  turnId: string;
  userId: string;
  request: ExecuteRequest;
  expectGeneration?: number | undefined;
  /** How long an engine that is not running yet may be waited for. */
  timeoutMs?: number | undefined;
}

export interface StartTurnResult {
  turnId: string;
  status: TurnStatus;
  generation: number;
  /** False when the turn was there already. */
  created: boolean;
}

const ENGINE_TIMEOUT_MS = 60_000;
const TASK_ID_MAX_LENGTH = 512;

/**
 * Starts a turn, or joins the one that has this id. Answers after the engine's status line, or in `starting` when
 * that takes long; the turn goes on whoever waits for it.
 *
 * @throws IDEMPOTENCY_MISMATCH, TURN_IN_PROGRESS, DRAINING, what `acquireEngine` throws, and when the engine refuses
 * ENGINE_ERROR, ENGINE_UNHEALTHY or NOT_SUPPORTED_BY_ENGINE. A lost answer is no error but a turn that failed.
 */
export async function startTurn(ctx: TurnContext, input: StartTurnInput): Promise<StartTurnResult> {
  requireUsableTaskId(input.request.taskId);
  const { userId, request, expectGeneration } = input;
  const fingerprint = toFingerprint({ userId, request, expectGeneration });
  for (;;) {
    const live = ctx.turns.find(input.productId, input.turnId);
    const { productId, turnId } = input;
    // Nothing awaits between the look at the registry and this: of two calls with one id, one is first.
    const turn = live ?? ctx.turns.open({ productId, turnId, userId, taskId: request.taskId, fingerprint });
    if (!live) void launchTurn(ctx, turn, toLaunch(input));
    const result = await joinTurn(turn, fingerprint);
    if (result) return { ...result, created: !live && result.created };
  }
}

/** undefined: another replica was first with this id, and the turn is to be looked for again. */
async function joinTurn(turn: LiveTurn, fingerprint: string): Promise<StartTurnResult | undefined> {
  try {
    // Until then it may be the turn's second start, with an input of its own.
    await turn.untilNew();
    requireSameInput(turn.fingerprint, fingerprint);
    await turn.untilStarted();
  } catch (error) {
    if (!(error instanceof TurnTakenError)) throw error;
    return error.row && joinRecordedTurn(error.row, fingerprint);
  }
  const generation = turn.record?.generation;
  if (generation === undefined) throw new Error("a turn was answered before it was recorded");
  return { turnId: turn.turnId, status: turn.status, generation, created: true };
}

function joinRecordedTurn(row: TurnRow, fingerprint: string): StartTurnResult {
  requireSameInput(row.fingerprint, fingerprint);
  return { turnId: row.turnId, status: row.status, generation: row.generation, created: false };
}

function requireSameInput(known: string, given: string): void {
  if (known === given) return;
  throw new DomainError("IDEMPOTENCY_MISMATCH", "a turn of this id was started with another input");
}

// It goes into an index and has to come back as it was: Postgres has no NUL and folds lone surrogates into one.
function requireUsableTaskId(taskId: unknown): void {
  const isUsable =
    typeof taskId === "string" &&
    taskId.length > 0 &&
    taskId.length <= TASK_ID_MAX_LENGTH &&
    taskId.isWellFormed() &&
    !taskId.includes("\0");
  if (isUsable) return;
  const message = `must be 1 to ${TASK_ID_MAX_LENGTH} characters of well-formed text without NUL`;
  throw new DomainError("INVALID_INPUT", `request.taskId ${message}`, {
    issues: [{ path: "request.taskId", message }],
  });
}

/** What a turn's life needs of its start; the request itself, which may be large, only until it is sent. */
type Launch = Pick<StartTurnInput, "productId" | "userId" | "expectGeneration" | "timeoutMs"> & {
  body: ExecuteBody;
};

function toLaunch({ request, productId, userId, expectGeneration, timeoutMs }: StartTurnInput): Launch {
  return { productId, userId, expectGeneration, timeoutMs, body: new ExecuteBody(request) };
}

/** From the engine to the end of the turn. Never throws: what goes wrong reaches those who wait for the turn. */
async function launchTurn(ctx: TurnContext, turn: LiveTurn, launch: Launch): Promise<void> {
  const { body } = launch;
  try {
    const use = await useAndRecord(ctx, turn, launch);
    if (use) await driveTurn(ctx, { turn, use, body });
    else await endCancelled(ctx, turn);
  } catch (error) {
    ctx.turns.remove(turn);
    turn.refuse(toStartError(turn, error));
  }
}

function toStartError(turn: LiveTurn, error: unknown): unknown {
  const stopCause = findStop(turn, error);
  return stopCause ? toStopError(stopCause) : error;
}

/** The stop that has cut a start short. What else went wrong says more: there would be no turn without the stop either. */
function findStop(turn: LiveTurn, error: unknown): EndCause | undefined {
  const isCutShort = error instanceof Error && error.name === "AbortError" && turn.record === undefined;
  return isCutShort ? turn.stopCause : undefined;
}

/** The engine, held, with the turn recorded for it; undefined when it is recorded and was cancelled before that. */
async function useAndRecord(
  ctx: TurnContext,
  turn: LiveTurn,
  launch: Launch,
): Promise<HeldEngine | undefined> {
  const { productId, userId, expectGeneration, timeoutMs = ENGINE_TIMEOUT_MS, body } = launch;
  let beginning: Promise<BegunTurn> | undefined;
  let seen: BegunTurn["engine"];
  // Mostly the engine runs and the turn is new: then this is the only round trip.
  const findFirst = async () => {
    beginning = beginTurn(ctx, turn, expectGeneration);
    body.prepareSoon();
    seen = (await beginning).engine;
    turn.markNew();
    return seen;
  };
  // A row that waits would look, after a crash, as if the engine might have the turn.
  const onBlocked = async () => {
    const begun = await beginning;
    beginning = undefined;
    if (begun?.startedAt !== undefined) await takeBack(ctx, turn);
  };
  const { stopSignal: signal } = turn;
  const wanted = { productId, userId, expectGeneration, timeoutMs, signal, findFirst, onBlocked };
  try {
    const use = await ctx.turns.options.acquireEngine(wanted);
    await recordFor(ctx, turn, { use, begun: await beginning });
    return use;
  } catch (error) {
    // What it says outweighs what was said for want of patience.
    const begun = await beginning;
    if (seen && findStop(turn, error)?.reason === "CANCELLED") {
      await recordUnsent(ctx, turn, { engine: seen, startedAt: begun?.startedAt });
      return undefined;
    }
    if (begun?.startedAt !== undefined) await eraseTurn(ctx, turn);
    throw error;
  }
}

/** What was begun stands when it is for the engine as it is now that it is held. */
async function recordFor(
  ctx: TurnContext,
  turn: LiveTurn,
  { use, begun }: { use: HeldEngine; begun: BegunTurn | undefined },
): Promise<void> {
  const { engineId, generation } = use;
  try {
    if (begun?.startedAt === undefined) await recordTurn(ctx, turn, use);
    else if (begun.engine?.id === engineId && begun.engine.generation === generation) {
      turn.markRecorded({ engineId, generation, startedAt: begun.startedAt });
    } else {
      await takeBack(ctx, turn);
      begun.startedAt = undefined;
      await recordTurn(ctx, turn, use);
    }
  } catch (error) {
    use.release();
    throw error;
  }
}

/** A turn that its engine will never have still has its end, for whoever cancelled it and for whoever starts it again. */
async function recordUnsent(
  ctx: TurnContext,
  turn: LiveTurn,
  { engine, startedAt }: { engine: NonNullable<BegunTurn["engine"]>; startedAt: string | undefined },
): Promise<void> {
  const place = { engineId: engine.id, generation: engine.generation };
  if (startedAt === undefined) await recordTurn(ctx, turn, place);
  else turn.markRecorded({ ...place, startedAt });
}

/** So that it can be written anew. */
async function takeBack(ctx: TurnContext, turn: LiveTurn): Promise<void> {
  if (await eraseTurn(ctx, turn)) return;
  throw new DomainError("DATABASE_UNAVAILABLE", "the turn could not be recorded", { retryAfterMs: 1_000 });
}
