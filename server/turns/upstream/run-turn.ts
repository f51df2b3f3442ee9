import type { ExecuteBody } from "../../engine-contract/execute-body.ts";
import { sendExecute, type ExecuteAnswer, type StreamSource } from "../../engine-contract/execute.ts";
import { toRefusal } from "../../engine-contract/execute-refusal.ts";
import type { HeldEngine } from "../../engines/access/hold-engine.ts";
import { DomainError, toErrorMessage } from "../../errors.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { CANCELLED_UNSENT, toEndCause, type EndCause } from "../model/turn-end.ts";
import { eraseTurn } from "../start/record-turn.ts";
import { toStopError } from "../start/stop-error.ts";
import { explainClose } from "./explain-close.ts";
import { IdleWatchdog } from "./idle-watchdog.ts";
import type { RunContext } from "./run-context.ts";
import { UpstreamReader } from "./upstream-reader.ts";

export interface RunTurnInput {
  turn: LiveTurn;
  held: HeldEngine;
  body: ExecuteBody;
}

/** How a turn went: an end to record, with an error for the callers of start if there is one; or nothing to record. */
type Result =
  | { kind: "ended"; cause: EndCause; startError?: DomainError | undefined }
  | { kind: "not_begun"; error: unknown }
  | { kind: "lost" };

/**
 * Takes a recorded turn to its end: sends the request once, reads the stream, decides the end and has it committed.
 * Releases the hold, or lets it linger while the engine may still be at work.
 */
export async function runTurn(ctx: RunContext, input: RunTurnInput): Promise<void> {
  const { turn, held } = input;
  const watchdog = new IdleWatchdog(ctx.clock, ctx.config.turnIdleTimeoutMs);
  const onInterrupted = () => turn.stop(toInterruption(held.interrupted.reason));
  held.interrupted.addEventListener("abort", onInterrupted, { once: true });
  if (held.interrupted.aborted) onInterrupted();
  const calling = callEngine(ctx, input, watchdog);
  const stopClocks = startClocks(ctx, turn, watchdog);
  try {
    const result = await calling;
    held.interrupted.removeEventListener("abort", onInterrupted);
    await conclude(ctx, input, result);
  } finally {
    stopClocks();
  }
}

/** Returns a function that stops the clocks. The watchdog stops with the call. */
function startClocks(ctx: RunContext, turn: LiveTurn, watchdog: IdleWatchdog): () => void {
  let stopAnswer: (() => void) | undefined;
  // One turn of the event loop later, when a request on a kept connection has left: the timers must not delay it.
  const start = setImmediate(() => {
    stopAnswer = ctx.clock.after(ctx.turnTiming.startAnswerMs, () => turn.answer());
    watchdog.start(() => turn.stop(toIdleEnd(ctx.config.turnIdleTimeoutMs)));
  });
  return () => {
    clearImmediate(start);
    stopAnswer?.();
  };
}

async function callEngine(ctx: RunContext, input: RunTurnInput, watchdog: IdleWatchdog): Promise<Result> {
  try {
    return await sendAndRead(ctx, input, watchdog);
  } catch (error) {
    // A defect of ours. The turn still has to end, and what the engine does is unknown.
    ctx.log.error({ turnId: input.turn.turnId, error: toErrorMessage(error) }, "a turn could not be read");
    return { kind: "ended", cause: toUnknownOutcome("the orchestrator failed to read the turn") };
  } finally {
    watchdog.stop();
  }
}

async function sendAndRead(ctx: RunContext, input: RunTurnInput, watchdog: IdleWatchdog): Promise<Result> {
  const { turn, held, body } = input;
  if (turn.stopSignal.aborted) return stoppedBeforeSending(turn);
  if (!ctx.replica.holdsLease()) return { kind: "not_begun", error: databaseUnavailable() };
  const onAccepted = (source: StreamSource) => {
    turn.markStreaming(ctx.clock.now());
    ctx.turnLog.touch(turn);
    ctx.lingeringHolds.releaseFinished({ ...held, taskId: turn.taskId });
    turn.answer();
    return new UpstreamReader(ctx, { turn, watchdog, source });
  };
  const { errorBodyMs } = ctx.turnTiming;
  const options = { body, onAccepted, signal: turn.stopSignal, errorBodyMs };
  const answer = await sendExecute(ctx.connections, held, options);
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

async function readStream(ctx: RunContext, { turn, watchdog, reader }: Stream): Promise<Result> {
  const outcome = await reader.untilOver();
  if (reader.droppedEvents > 0) {
    ctx.log.warn(
      { turnId: turn.turnId, events: reader.droppedEvents },
      "events after the terminal event were dropped",
    );
  }
  switch (outcome.kind) {
    case "ended":
      return { kind: "ended", cause: outcome.cause };
    case "stopped":
      return toStopped(turn);
    case "closed":
      // A closed stream is silent, so silence must not count any more.
      watchdog.pause();
      return { kind: "ended", cause: await explainClose(ctx, turn, outcome) };
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

/** `isFinal`: the request had no effect. Its row is erased, unless start has already answered that the turn starts. */
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

/** Ends a recorded turn that was cancelled before its engine was held. */
export async function endUnsentTurn(ctx: RunContext, turn: LiveTurn): Promise<void> {
  await commitEnd(ctx, turn, CANCELLED_UNSENT);
  ctx.turns.remove(turn);
  turn.answer();
}

async function commitEnd(ctx: RunContext, turn: LiveTurn, cause: EndCause): Promise<void> {
  turn.end(cause);
  ctx.turnLog.touch(turn);
  await turn.until("over");
}

async function conclude(ctx: RunContext, { turn, held }: RunTurnInput, result: Result): Promise<void> {
  switch (result.kind) {
    case "not_begun":
      held.release();
      await eraseTurn(ctx, turn);
      ctx.turns.remove(turn);
      turn.refuse(result.error);
      return;
    case "lost":
      held.release();
      ctx.turns.remove(turn);
      turn.answer();
      return;
    case "ended":
      if (result.cause.engineMayContinue) ctx.lingeringHolds.add(held, turn.taskId);
      else held.release();
      await commitEnd(ctx, turn, result.cause);
      ctx.turns.remove(turn);
      turn.answer(result.startError);
  }
}

function toInterruption(reason: unknown): EndCause {
  const isRestart = reason === "ENGINE_RESTARTED";
  return toEndCause("interrupted", isRestart ? "ENGINE_RESTARTED" : "ENGINE_STOPPED", {
    message: isRestart ? "the engine was restarted" : "the engine was stopped",
    // The engine has a grace in which it may still finish the turn in its own brain.
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
  return new DomainError("DATABASE_UNAVAILABLE", "this replica has lost its lease", { retryAfterMs: 1_000 });
}
