import type { TurnStatus } from "../../../db/turns.ts";
import { ExecuteBody, type ExecuteRequest } from "../../engine-contract/execute-body.ts";
import type { HoldContext } from "../../engines/access/hold-engine.ts";
import type { CallContext } from "../../context.ts";
import { DomainError } from "../../errors.ts";
import { isFingerprint, toFingerprint, type Fingerprint } from "../../idempotency/fingerprint.ts";
import type { Keyring } from "../../keys/keyring.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { CANCELLED_UNSENT } from "../model/turn-end.ts";
import type { RunContext } from "../upstream/run-context.ts";
import { endTurn, runTurn } from "../upstream/run-turn.ts";
import { acquireForTurn, type AcquireForTurnInput } from "./acquire-for-turn.ts";
import { TurnTakenError } from "./record-turn.ts";

export type StartContext = RunContext &
  HoldContext &
  Parameters<typeof acquireForTurn>[0] &
  Pick<CallContext, "actor"> & { keyring: Keyring };

export interface StartTurnInput {
  productId: string;
  /** The caller's, and its idempotency key within the product. */
  turnId: string;
  userId: string;
  request: ExecuteRequest;
  expectGeneration?: number | undefined;
  /** How long to wait for an engine that is not running yet. */
  timeoutMs?: number | undefined;
}

export interface StartTurnResult {
  turnId: string;
  status: TurnStatus;
  generation: number;
  /** False when the turn existed already. */
  created: boolean;
  /** For `followTurn`. undefined: the turn is not live on this replica, and only the log has it. */
  live: LiveTurn | undefined;
}

const ENGINE_TIMEOUT_MS = 60_000;
const TASK_ID_MAX_LENGTH = 512;

/**
 * Starts a turn, or joins the turn of this id. Answers after the engine's status line, or in `starting` after 10 s. The
 * turn goes on without its callers.
 *
 * @throws IDEMPOTENCY_MISMATCH, TURN_IN_PROGRESS, DRAINING, what `acquireForTurn` throws, and when the engine refuses
 * ENGINE_ERROR, ENGINE_UNHEALTHY or NOT_SUPPORTED_BY_ENGINE. A lost answer is a turn that failed, not an error.
 */
export async function startTurn(ctx: StartContext, input: StartTurnInput): Promise<StartTurnResult> {
  requireUsableTaskId(input.request.taskId);
  const { userId, request, expectGeneration } = input;
  const row = ["turns", input.productId, input.turnId.toLowerCase()];
  const fingerprint = toFingerprint(ctx.keyring, row, { userId, request, expectGeneration });
  for (;;) {
    const known = ctx.turns.find(input.productId, input.turnId);
    // No await between `find` and `open`, so only one of two calls with the same id opens the turn.
    const turn = known ?? openTurn(ctx, input, fingerprint.stored);
    const result = await joinTurn(ctx, turn, fingerprint);
    if (result) return { ...result, created: !known && result.created };
  }
}

function openTurn(ctx: StartContext, input: StartTurnInput, fingerprint: string): LiveTurn {
  const { productId, turnId, userId, request, expectGeneration, timeoutMs = ENGINE_TIMEOUT_MS } = input;
  const startedBy = ctx.actor.id;
  const turn = ctx.turns.open({ productId, turnId, userId, taskId: request.taskId, fingerprint, startedBy });
  void launchTurn(ctx, turn, { expectGeneration, timeoutMs, body: new ExecuteBody(request) });
  return turn;
}

/** undefined: another replica wrote a turn of this id first, so start again. */
async function joinTurn(
  { keyring }: Pick<StartContext, "keyring">,
  turn: LiveTurn,
  fingerprint: Fingerprint,
): Promise<StartTurnResult | undefined> {
  try {
    // If the turn is not new, its row decides which input is right, and not this start of it.
    await turn.until("new");
    requireSameInput(keyring, turn.input.fingerprint, fingerprint);
    await turn.untilAnswered();
  } catch (error) {
    if (!(error instanceof TurnTakenError)) throw error;
    if (error.row === undefined) return undefined;
    requireSameInput(keyring, error.row.fingerprint, fingerprint);
    const { turnId, status, generation } = error.row;
    return { turnId, status, generation, created: false, live: undefined };
  }
  const generation = turn.record?.generation;
  if (generation === undefined) throw new Error("a turn was answered before it was recorded");
  return { turnId: turn.input.turnId, status: turn.status, generation, created: true, live: turn };
}

function requireSameInput(keyring: Keyring, known: string, given: Fingerprint): void {
  if (isFingerprint(keyring, known, given)) return;
  throw new DomainError("IDEMPOTENCY_MISMATCH", "a turn of this id was started with another input");
}

// The task id is in an index and must come back unchanged. Postgres has no NUL, and lone surrogates all become the same.
function requireUsableTaskId(taskId: unknown): void {
  const isUsable =
    typeof taskId === "string" &&
    taskId.length > 0 &&
    taskId.length <= TASK_ID_MAX_LENGTH &&
    taskId.isWellFormed() &&
    !taskId.includes("\0");
  if (isUsable) return;
  const message = `must be 1 to ${TASK_ID_MAX_LENGTH} characters of well-formed text without NUL`;
  const issues = [{ path: "request.taskId", message }];
  throw new DomainError("INVALID_INPUT", `request.taskId ${message}`, { issues });
}

interface Launch extends AcquireForTurnInput {
  /** Without a reference to the request, which may be large, once it is sent. */
  body: ExecuteBody;
}

/** From the engine to the end of the turn. Never throws: errors go to those who wait for the turn. */
async function launchTurn(ctx: StartContext, turn: LiveTurn, launch: Launch): Promise<void> {
  try {
    const { ending } = await acquireAndSend(ctx, turn, launch);
    await ending;
  } catch (error) {
    ctx.turns.remove(turn);
    turn.refuse(error);
  }
}

/** Returns once the request is on its way. `ending` resolves when the turn is over. */
async function acquireAndSend(
  ctx: StartContext,
  turn: LiveTurn,
  { body, ...input }: Launch,
): Promise<{ ending: Promise<void> }> {
  const { productId, userId } = turn.input;
  using early = ctx.connections.early.open(productId, userId);
  const acquiring = acquireForTurn(ctx, turn, input);
  // Encodes the body while the database works.
  body.prepareSoon();
  const { record, held } = await acquiring;
  turn.markRecorded(record);
  if (held === undefined) return { ending: endTurn(ctx, turn, { cause: CANCELLED_UNSENT }) };
  early.remember(held.endpoint);
  return { ending: runTurn(ctx, { turn, held, body }) };
}
