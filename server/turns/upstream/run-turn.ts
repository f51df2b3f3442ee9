import type { HeldEngine } from "../../engines/access/acquire-engine.ts";
import { DomainError, toErrorMessage } from "../../errors.ts";
import type { ExecuteBody } from "../../engine-contract/execute-body.ts";
import { explainClose } from "./explain-close.ts";
import { IdleWatchdog } from "./idle-watchdog.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { eraseTurn } from "../start/record-turn.ts";
import { toRefusal } from "../../engine-contract/refusal.ts";
import { sendExecute, type ExecuteAnswer, type StreamSource } from "../../engine-contract/execute.ts";
import { CANCELLED_UNSENT, toEndCause, type EndCause } from "../model/turn-end.ts";
import type { TurnContext } from "../turn-registry.ts";
import { UpstreamReader } from "./upstream-reader.ts";

export interface Drive {
  turn: LiveTurn;
  use: HeldEngine;
  body: ExecuteBody;
}

/** What came of a turn: an end to record, with an error for whoever waits for its start, or nothing at all. */
type Result =
  | { kind: "ended"; cause: EndCause; startError?: DomainError | undefined }
  | { kind: "not_begun"; error: unknown }
  | { kind: "lost" };

/**
 * Takes a recorded turn to its end: sends the request once, reads the stream, decides the end, has it written, and
 * gives the hold back, or leaves it to linger while the engine may still be at work.
 */
export async function driveTurn(ctx: TurnContext, drive: Drive): Promise<void> {
  const { turn, use } = drive;
  const { config, clock } = ctx.turns.options;
  const watchdog = new IdleWatchdog(clock, config.turnIdleTimeoutMs);
  const onInterrupted = () => turn.stop(toInterruption(use.interrupted.reason));
  use.interrupted.addEventListener("abort", onInterrupted, { once: true });
  if (use.interrupted.aborted) onInterrupted();
  const running = runTurn(ctx, drive, watchdog);
  const stopClocks = startClocks(ctx, turn, watchdog);
  try {
    const result = await running;
    use.interrupted.removeEventListener("abort", onInterrupted);
    await conclude(ctx, drive, result);
  } finally {
    stopClocks();
  }
}

/** Returns what stops them; the watchdog stops with the reading. */
function startClocks(ctx: TurnContext, turn: LiveTurn, watchdog: IdleWatchdog): () => void {
  let stopAnswer: (() => void) | undefined;
  // A turn of the loop later: a request on a kept connection has left by then, and nothing here is in its way.
  const start = setImmediate(() => {
    const { config, clock } = ctx.turns.options;
    stopAnswer = clock.after(ctx.turns.timing.startAnswerMs, () => turn.answer());
    watchdog.start(() => turn.stop(toIdleEnd(config.turnIdleTimeoutMs)));
  });
  return () => {
    clearImmediate(start);
    stopAnswer?.();
  };
}

async function runTurn(ctx: TurnContext, drive: Drive, watchdog: IdleWatchdog): Promise<Result> {
  try {
    return await exchange(ctx, drive, watchdog);
  } catch (error) {
    // Nothing here should throw; if it does, the turn still ends, and what the engine does is not known.
    ctx.log.error({ turnId: drive.turn.turnId, error: toErrorMessage(error) }, "driving a turn failed");
    return { kind: "ended", cause: toUnknownOutcome("the orchestrator failed to read the turn") };
  } finally {
    watchdog.stop();
  }
}

async function exchange(ctx: TurnContext, drive: Drive, watchdog: IdleWatchdog): Promise<Result> {
  const { turn, use } = drive;
  if (turn.stopSignal.aborted) return stoppedBeforeSending(turn);
  if (!ctx.turns.options.replica.holdsLease()) {
    return { kind: "not_begun", error: databaseUnavailable() };
  }
  const onAccepted = (source: StreamSource) => {
    turn.markStreaming(ctx.clock.now());
    ctx.turns.log.touch(turn);
    ctx.turns.lingering.accepted({ ...use, taskId: turn.taskId });
    turn.answer();
    return new UpstreamReader(ctx.turns, { turn, watchdog, source });
  };
  const { errorBodyMs } = ctx.turns.timing;
  const signal = turn.stopSignal;
  const answer = await sendExecute(ctx.turns.options.connections, use, {
    body: drive.body,
    onAccepted,
    signal,
    errorBodyMs,
  });
  if (answer.kind !== "streaming") return toResult(turn, answer);
  try {
    return await readStream(ctx, { turn, watchdog, reader: answer.sink });
  } finally {
    answer.close();
  }
}

interface Stream {
  turn: LiveTurn;
  watchdog: IdleWatchdog;
  reader: UpstreamReader;
}

async function readStream(ctx: TurnContext, { turn, watchdog, reader }: Stream): Promise<Result> {
  const outcome = await reader.untilOver();
  if (reader.droppedEvents > 0) {
    ctx.log.warn(
      { turnId: turn.turnId, events: reader.droppedEvents },
      "events after the last word were dropped",
    );
  }
  switch (outcome.kind) {
    case "ended":
      return { kind: "ended", cause: outcome.cause };
    case "stopped":
      return toStopped(turn);
    case "closed":
      // From here on it is silent because it is gone.
      watchdog.pause();
      return { kind: "ended", cause: await explainClose(ctx.turns, turn, outcome) };
  }
}

type NotStreaming = Exclude<ExecuteAnswer<UpstreamReader>, { kind: "streaming" }>;

function toResult(turn: LiveTurn, answer: NotStreaming): Result {
  switch (answer.kind) {
    case "unreachable":
      if (turn.stopSignal.aborted) return stoppedBeforeSending(turn);
      return toRefused(turn, {
        isFinal: true,
        error: new DomainError("ENGINE_UNHEALTHY", "the engine cannot be reached", { retryAfterMs: 1_000 }),
      });
    case "lost":
      if (turn.stopSignal.aborted) return toStopped(turn);
      return { kind: "ended", cause: toUnknownOutcome("the connection was lost before the engine answered") };
    case "refused":
      return toRefused(turn, toRefusal(answer.error));
    case "not_a_stream": {
      const error = new DomainError("ENGINE_ERROR", "the engine did not answer with an event stream", {
        engineError: answer.error,
      });
      return toRefused(turn, { isFinal: false, error });
    }
  }
}

/** `isFinal`: the turn had no effect, so nothing is kept of it unless its caller was already told that it starts. */
function toRefused(turn: LiveTurn, refusal: { isFinal: boolean; error: DomainError }): Result {
  const { isFinal, error } = refusal;
  if (isFinal && !turn.isAnswered) return { kind: "not_begun", error };
  const { engineError } = error;
  const cause = toEndCause("failed", "ENGINE_REFUSED", {
    message: error.message,
    engineError: engineError ? toEndError(engineError) : null,
    engineMayContinue: engineError?.status === 200,
  });
  return { kind: "ended", cause, startError: error };
}

function toEndError(error: NonNullable<DomainError["engineError"]>): NonNullable<EndCause["engineError"]> {
  const { status: _status, ...rest } = error;
  return rest;
}

function toStopped(turn: LiveTurn): Result {
  return turn.stopCause ? { kind: "ended", cause: turn.stopCause } : { kind: "lost" };
}

function stoppedBeforeSending(turn: LiveTurn): Result {
  const cause = turn.stopCause;
  if (cause === undefined) return { kind: "lost" };
  if (cause.reason === "CANCELLED") return { kind: "ended", cause: CANCELLED_UNSENT };
  if (turn.isAnswered) return { kind: "ended", cause: { ...cause, engineMayContinue: false } };
  return { kind: "not_begun", error: toStopError(cause) };
}

/** Takes a recorded turn that was cancelled before its engine was held to its end. */
export async function endCancelled(ctx: TurnContext, turn: LiveTurn): Promise<void> {
  const result = stoppedBeforeSending(turn);
  if (result.kind === "ended") await writeEnd(ctx, turn, result.cause);
  ctx.turns.remove(turn);
  turn.answer();
}

async function writeEnd(ctx: TurnContext, turn: LiveTurn, cause: EndCause): Promise<void> {
  turn.finish(cause);
  ctx.turns.log.touch(turn);
  await turn.untilSettled();
}

/** What the caller of start gets when the turn was stopped before its engine had it. */
export function toStopError(cause: EndCause): DomainError {
  const message = cause.message ?? "the turn was stopped";
  switch (cause.reason) {
    case "DRAINING":
      return new DomainError("DRAINING", message, { retryAfterMs: 1_000 });
    case "ENGINE_STOPPED":
      return new DomainError("ENGINE_STOPPED", message);
    case "CANCELLED":
      return new DomainError("TURN_NOT_FOUND", CANCELLED_UNSENT.message ?? message);
    default:
      return new DomainError("ENGINE_UNHEALTHY", message, { retryAfterMs: 1_000 });
  }
}

async function conclude(ctx: TurnContext, drive: Drive, result: Result): Promise<void> {
  const { turn, use } = drive;
  switch (result.kind) {
    case "not_begun":
      use.release();
      await eraseTurn(ctx, turn);
      ctx.turns.remove(turn);
      turn.refuse(result.error);
      return;
    case "lost":
      use.release();
      break;
    case "ended":
      if (result.cause.engineMayContinue) ctx.turns.lingering.add(use, turn.taskId);
      else use.release();
      await writeEnd(ctx, turn, result.cause);
      if (result.startError) turn.failStart(result.startError);
      break;
  }
  ctx.turns.remove(turn);
  turn.answer();
}

function toInterruption(reason: unknown): EndCause {
  const isRestart = reason === "ENGINE_RESTARTED";
  return toEndCause("interrupted", isRestart ? "ENGINE_RESTARTED" : "ENGINE_STOPPED", {
    message: isRestart ? "the engine was restarted" : "the engine was stopped",
    // It gets a grace to finish in, and an engine that uses it ends the turn in its own brain.
    engineMayContinue: true,
  });
}

function toIdleEnd(idleMs: number): EndCause {
  return toEndCause("failed", "ENGINE_TIMEOUT", { message: `the engine sent nothing for ${idleMs} ms` });
}

function toUnknownOutcome(message: string): EndCause {
  return toEndCause("failed", "OUTCOME_UNKNOWN", { message });
}

function databaseUnavailable(): DomainError {
  return new DomainError("DATABASE_UNAVAILABLE", "this replica has lost touch with the database", {
    retryAfterMs: 1_000,
  });
}
