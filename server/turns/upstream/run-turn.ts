import type { ExecuteBody } from "../../engine-contract/execute-body.ts";
import { sendExecute } from "../../engine-contract/execute.ts";
import type { StreamAnswer, StreamSource } from "../../engine-contract/stream-call.ts";
import { toRefusal, type Refusal } from "../../engine-contract/execute-refusal.ts";
import type { EngineHold, HeldEngine } from "../../engines/access/hold-engine.ts";
import { DomainError, toErrorMessage, type EngineErrorDetail } from "../../errors.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { CANCELLED_UNSENT, toEndCause, type EndCause } from "../model/turn-end.ts";
import { eraseTurn } from "../start/record-turn.ts";
import { toStopError } from "../start/stop-error.ts";
import { explainBusyTask } from "./explain-busy-task.ts";
import { IdleWatchdog, type IdleCause } from "./idle-watchdog.ts";
import { readToEnd } from "./read-to-end.ts";
import type { RunContext } from "./run-context.ts";
import { StopAtEngine } from "./stop-at-engine.ts";
import { UpstreamReader } from "./upstream-reader.ts";

export interface RunTurnInput {
  turn: LiveTurn;
  held: HeldEngine;
  body: ExecuteBody;
}

/** How a turn went: an end to record, with an error for the callers of start if there is one; or nothing to record. */
export type TurnResult =
  | { kind: "ended"; cause: EndCause; startError?: DomainError | undefined }
  /** The turn was a dead owner's, and its events cannot be read on. As after every lost owner, no hold remains. */
  | { kind: "unreadable"; cause: EndCause }
  | { kind: "not_begun"; error: unknown }
  /** The next owner goes on with the turn. */
  | { kind: "left" }
  | { kind: "lost" };

/** `held` undefined: the turn was stopped before it held its engine. */
interface Supervised {
  turn: LiveTurn;
  held: EngineHold | undefined;
}

/**
 * Takes a recorded turn to its end: sends the request once, reads the stream, decides the end and has it committed.
 * Releases the hold, or lets it linger while the engine may still be at work.
 */
export async function runTurn(ctx: RunContext, input: RunTurnInput): Promise<void> {
  const stop = new StopAtEngine(ctx, input);
  await superviseTurn(ctx, input, async (watchdog) => {
    const result = await sendAndRead(ctx, input, { watchdog, stop });
    if (result.kind === "ended") result.cause = await stop.endAtEngine(result.cause);
    return result;
  });
}

/** Runs `read`, which reads a recorded turn, under the turn's clocks and its hold. Then has the result committed. */
export async function superviseTurn(
  ctx: RunContext,
  { turn, held }: { turn: LiveTurn; held: EngineHold },
  read: (watchdog: IdleWatchdog) => Promise<TurnResult>,
): Promise<void> {
  const watchdog = new IdleWatchdog(ctx.clock, toIdleLimits(ctx), turn.questions);
  const onInterrupted = () => turn.stop(toInterruption(held.interrupted.reason));
  held.interrupted.addEventListener("abort", onInterrupted, { once: true });
  if (held.interrupted.aborted) onInterrupted();
  const calling = callEngine(ctx, turn, async () => read(watchdog));
  const stopClocks = startClocks(ctx, turn, watchdog);
  try {
    const result = await calling;
    held.interrupted.removeEventListener("abort", onInterrupted);
    watchdog.stop();
    await concludeTurn(ctx, { turn, held }, result);
  } finally {
    stopClocks();
  }
}

/** Returns a function that stops the clocks. The watchdog stops with the call. */
function startClocks(ctx: RunContext, turn: LiveTurn, watchdog: IdleWatchdog): () => void {
  let stopAnswer: (() => void) | undefined;
  // One turn of the event loop later, when the connection has been asked for: the timers must not delay it.
  const start = setImmediate(() => {
    stopAnswer = ctx.clock.after(ctx.turnTiming.startAnswerMs, () => turn.answer());
    watchdog.start((cause) => turn.stop(toIdleEnd(ctx, cause, turn)));
  });
  return () => {
    clearImmediate(start);
    stopAnswer?.();
  };
}

function toIdleLimits({ config }: RunContext): { idleMs: number; personMs: number } {
  return { idleMs: config.turnIdleTimeoutMs, personMs: config.hitlTimeoutMs };
}

function toIdleEnd({ config }: RunContext, cause: IdleCause, { questions }: LiveTurn): EndCause {
  const what = questions.hasSeveral ? "one of its questions" : "its question";
  const message =
    cause === "silence"
      ? `the engine sent nothing for ${config.turnIdleTimeoutMs} ms`
      : `the engine waited ${config.hitlTimeoutMs} ms for a person, and nobody answered ${what}`;
  return toEndCause("failed", "ENGINE_TIMEOUT", { message });
}

/** What one turn has besides its input. */
interface TurnTools {
  watchdog: IdleWatchdog;
  stop: StopAtEngine;
}

async function callEngine(
  ctx: RunContext,
  turn: LiveTurn,
  read: () => Promise<TurnResult>,
): Promise<TurnResult> {
  try {
    return await read();
  } catch (error) {
    // A defect of ours. The turn still has to end, and what the engine does is unknown.
    ctx.log.error({ turnId: turn.input.turnId, error: toErrorMessage(error) }, "a turn could not be read");
    return { kind: "ended", cause: toUnknownOutcome("the service failed to read the turn") };
  }
}

async function sendAndRead(
  ctx: RunContext,
  input: RunTurnInput,
  { watchdog, stop }: TurnTools,
): Promise<TurnResult> {
  const { turn, held, body } = input;
  if (turn.stopSignal.aborted) return stoppedBeforeSending(turn);
  if (!ctx.replica.holdsLease()) {
    const message = "this replica has lost its lease";
    const error = new DomainError("DATABASE_UNAVAILABLE", message, { retryAfterMs: 1_000 });
    return { kind: "not_begun", error };
  }
  const onAccepted = (source: StreamSource) => {
    turn.markStreaming(ctx.clock.now());
    ctx.turnLog.touch(turn);
    ctx.lingeringHolds.releaseFinished({ ...held, taskId: turn.input.taskId });
    turn.answer();
    return new UpstreamReader(ctx, { turn, watchdog, source, apiKey: held.apiKey });
  };
  const { turnId } = turn.input;
  const { errorBodyMs } = ctx.turnTiming;
  const options = { body, turnId, onAccepted, signal: turn.stopSignal, errorBodyMs };
  const answer = await sendExecute(ctx.connections, held, options);
  if (answer.kind === "refused") {
    return toRefused(turn, await toRefusal(answer.error, async () => explainBusyTask(ctx, held, turn.input)));
  }
  if (answer.kind !== "streaming") return toResult(turn, answer);
  const stream = { sink: answer.sink, close: () => answer.close() };
  const end = await readToEnd(
    ctx,
    { turn, watchdog, stop, engine: held },
    { stream, toUnreadable: toUnknownOutcome },
  );
  return end.kind === "stopped" ? toStopped(turn) : end;
}

type NotStreaming = Exclude<StreamAnswer<UpstreamReader>, { kind: "streaming" | "refused" }>;

function toResult(turn: LiveTurn, answer: NotStreaming): TurnResult {
  switch (answer.kind) {
    case "unreachable": {
      if (turn.stopSignal.aborted) return stoppedBeforeSending(turn);
      const options = { retryAfterMs: 1_000 };
      const error = new DomainError("ENGINE_UNHEALTHY", "the engine cannot be reached", options);
      return toRefused(turn, { isFinal: true, error });
    }
    case "lost":
      if (turn.stopSignal.aborted) return toStopped(turn);
      return { kind: "ended", cause: toUnknownOutcome("the connection was lost before the engine answered") };
    case "not_a_stream": {
      const message = `the engine answered 200 with ${answer.contentType}: a turn needs the content type text/event-stream`;
      const error = new DomainError("ENGINE_ERROR", message, { engineError: answer.error });
      return toRefused(turn, { isFinal: false, error });
    }
  }
}

/** `isFinal`: the request had no effect. Its row is erased, unless start has already answered that the turn starts. */
function toRefused(turn: LiveTurn, { isFinal, error }: Refusal): TurnResult {
  if (isFinal && !turn.isAnswered) return { kind: "not_begun", error };
  const { engineError } = error;
  const cause = toEndCause("failed", "ENGINE_REFUSED", {
    message: error.message,
    engineError: engineError ? toEndError(engineError) : null,
    engineMayContinue: engineError?.status === 200,
  });
  return { kind: "ended", cause, startError: error };
}

function toEndError({ status: _status, ...rest }: EngineErrorDetail): EndCause["engineError"] {
  return rest;
}

/** For a turn whose stop signal has aborted. */
export function toStopped(turn: LiveTurn): TurnResult {
  if (turn.stopCause) return { kind: "ended", cause: turn.stopCause };
  return { kind: turn.state === "lost" ? "lost" : "left" };
}

function stoppedBeforeSending(turn: LiveTurn): TurnResult {
  const cause = turn.stopCause;
  if (cause === undefined) return { kind: "lost" };
  if (cause.reason === "CANCELLED") return { kind: "ended", cause: CANCELLED_UNSENT };
  if (turn.isAnswered) return { kind: "ended", cause: { ...cause, engineMayContinue: false } };
  return { kind: "not_begun", error: toStopError(cause) };
}

/** Commits the end of a recorded turn, then answers the callers of start, with an error if there is one. */
export async function endTurn(
  ctx: RunContext,
  turn: LiveTurn,
  { cause, startError }: { cause: EndCause; startError?: unknown },
): Promise<void> {
  turn.end(cause);
  ctx.turnLog.touch(turn);
  await turn.until("over");
  ctx.turns.remove(turn);
  turn.answer(startError);
}

/** Releases the hold, and has the end committed if there is one. */
export async function concludeTurn(
  ctx: RunContext,
  { turn, held }: Supervised,
  result: TurnResult,
): Promise<void> {
  switch (result.kind) {
    case "not_begun":
      held?.release();
      await eraseTurn(ctx, turn);
      ctx.turns.remove(turn);
      turn.refuse(result.error);
      return;
    case "lost":
      held?.release();
      ctx.turns.remove(turn);
      turn.answer();
      return;
    case "left":
      held?.release();
      ctx.turnLog.touch(turn);
      await turn.until("over");
      ctx.turns.leave(turn);
      return;
    case "unreadable":
      held?.release();
      await endTurn(ctx, turn, result);
      return;
    case "ended":
      releaseEnded(ctx, { turn, held }, result.cause);
      await endTurn(ctx, turn, result);
  }
}

function releaseEnded(
  ctx: RunContext,
  { turn, held }: Supervised,
  { engineMayContinue, reason, status }: EndCause,
): void {
  const { turnId, taskId } = turn.input;
  if (held && engineMayContinue) ctx.lingeringHolds.add(held, { turnId, taskId, reason: reason ?? status });
  else held?.release();
}

function toInterruption(reason: unknown): EndCause {
  const isRestart = reason === "ENGINE_RESTARTED";
  return toEndCause("interrupted", isRestart ? "ENGINE_RESTARTED" : "ENGINE_STOPPED", {
    message: isRestart ? "the engine was restarted" : "the engine was stopped",
    // The engine has a grace in which it may still finish the turn in its own brain.
    engineMayContinue: true,
  });
}

function toUnknownOutcome(message: string): EndCause {
  return toEndCause("failed", "OUTCOME_UNKNOWN", { message });
}
