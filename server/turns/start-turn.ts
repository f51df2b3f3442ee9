import { deleteStartingTurn, findTurn, type TurnRow, type TurnStatus } from "../../db/turns.ts";
import { DomainError } from "../errors.ts";
import { driveTurn, toStopError } from "./drive-turn.ts";
import { toFingerprint } from "./fingerprint.ts";
import { recordTurn, TurnTakenError } from "./record-turn.ts";
import type { LiveTurn } from "./live-turn.ts";
import type { ExecuteRequest } from "./send-execute.ts";
import type { TurnContext } from "./turn-registry.ts";

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
 * @throws IDEMPOTENCY_MISMATCH, TURN_IN_PROGRESS, DRAINING, what `useEngine` throws, and when the engine refuses
 * ENGINE_ERROR, ENGINE_UNHEALTHY or NOT_SUPPORTED_BY_ENGINE. A lost answer is no error but a turn that failed.
 */
export async function startTurn(ctx: TurnContext, input: StartTurnInput): Promise<StartTurnResult> {
  requireUsableTaskId(input.request.taskId);
  const fingerprint = toFingerprint(input);
  for (;;) {
    const live = ctx.turns.find(input.productId, input.turnId);
    const joined = live && (await joinLiveTurn(live, fingerprint));
    if (joined) return joined;
    if (live) continue;
    const row = await findTurn(ctx.raw, input);
    if (ctx.turns.find(input.productId, input.turnId)) continue;
    if (row && !isLeftover(ctx, row)) return joinRecordedTurn(row, fingerprint);
    if (row) {
      await deleteStartingTurn(ctx.raw, row);
      continue;
    }
    // Nothing awaits between the look at the registry and this: of two calls with one id, one is first.
    const { productId, turnId, userId } = input;
    const turn = ctx.turns.open({ productId, turnId, userId, taskId: input.request.taskId, fingerprint });
    void launchTurn(ctx, turn, input);
    const result = await joinLiveTurn(turn, fingerprint);
    if (result) return { ...result, created: true };
  }
}

/** `starting`, ours, and nobody drives it: its start failed before anything was sent, and so did its removal. */
function isLeftover(ctx: TurnContext, row: TurnRow): boolean {
  return row.status === "starting" && row.ownerReplica === ctx.turns.options.replica.id;
}

/** undefined: another replica was first with this id, and the turn is to be looked for again. */
async function joinLiveTurn(turn: LiveTurn, fingerprint: string): Promise<StartTurnResult | undefined> {
  requireSameInput(turn.fingerprint, fingerprint);
  try {
    await turn.untilStarted();
  } catch (error) {
    if (error instanceof TurnTakenError) return undefined;
    throw error;
  }
  const generation = turn.record?.generation;
  if (generation === undefined) throw new Error("a turn was answered before it was recorded");
  return { turnId: turn.turnId, status: turn.status, generation, created: false };
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

/** From the engine to the end of the turn. Never throws: what goes wrong reaches those who wait for the turn. */
async function launchTurn(ctx: TurnContext, turn: LiveTurn, input: StartTurnInput): Promise<void> {
  const { productId, userId, expectGeneration, timeoutMs = ENGINE_TIMEOUT_MS } = input;
  try {
    const wanted = { productId, userId, expectGeneration, timeoutMs, signal: turn.stopSignal };
    const use = await ctx.turns.options.useEngine(wanted);
    try {
      await recordTurn(ctx, turn, use);
    } catch (error) {
      use.release();
      throw error;
    }
    await driveTurn(ctx, { turn, use, request: input.request });
  } catch (error) {
    ctx.turns.remove(turn);
    turn.refuse(turn.stopCause && !turn.record ? toStopError(turn.stopCause) : error);
  }
}
