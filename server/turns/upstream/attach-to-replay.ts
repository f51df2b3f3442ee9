import type { EngineAddress } from "../../engine-contract/engine-address.ts";
import { sendReplay } from "../../engine-contract/replay.ts";
import type { StreamAnswer } from "../../engine-contract/stream-call.ts";
import { Deadline } from "../../time/deadline.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import type { EndCause } from "../model/turn-end.ts";
import { findEngineFate } from "./engine-fate.ts";
import type { IdleWatchdog } from "./idle-watchdog.ts";
import type { RunContext } from "./run-context.ts";
import type { StopAtEngine } from "./stop-at-engine.ts";
import { UpstreamReader } from "./upstream-reader.ts";

/** A turn and the engine that it is read from. */
export interface Reading {
  turn: LiveTurn;
  watchdog: IdleWatchdog;
  engine: EngineAddress;
  stop: StopAtEngine;
}

/** The caller must call `close`, which ends the connection. */
export interface OpenStream {
  sink: UpstreamReader;
  close(): void;
}

export type Attachment =
  | { kind: "attached"; stream: OpenStream }
  /** The engine cannot give the rest of the turn. `isGone`: its process has ended. */
  | { kind: "refused"; why: string; isGone: boolean }
  /** The log has the engine's last event already, and only the end was not committed. */
  | { kind: "over"; cause: EndCause }
  | { kind: "stopped" };

/** `failed`: another attempt may succeed. */
export type AttachAttempt = Attachment | { kind: "failed"; why: string };

const RETRY_MS = 500;

/** Repeats failed attempts until `untilMs`, at least one. The last one's failure counts as a refusal. */
export async function untilAttached(
  { clock }: Pick<RunContext, "clock">,
  { stopSignal }: Pick<LiveTurn, "stopSignal">,
  { untilMs, attempt }: { untilMs: number; attempt: () => Promise<AttachAttempt> },
): Promise<Attachment> {
  for (;;) {
    if (stopSignal.aborted) return { kind: "stopped" };
    const attachment = await attempt();
    if (attachment.kind !== "failed") return attachment;
    if (clock.now() >= untilMs) return { kind: "refused", why: attachment.why, isGone: false };
    await clock.sleep(RETRY_MS, stopSignal).catch(() => {
      // Stopped: the loop sees it.
    });
  }
}

/**
 * Asks the engine for the events after the last one that came, and for the live rest. Only the process that has the turn
 * is asked: a later one would report that the turn was cut, and not what the process did.
 */
export async function attachToReplay(
  ctx: RunContext,
  reading: Omit<Reading, "stop">,
): Promise<AttachAttempt> {
  const { turn } = reading;
  const fate = await findEngineFate(ctx, turn, ctx.turnTiming.observeMs);
  if (fate === "unknown") return { kind: "failed", why: "the engine's runtime does not answer" };
  if (fate !== "same") {
    const what = fate === "ENGINE_STOPPED" ? "was stopped" : "has another process";
    return { kind: "refused", why: `the engine ${what} since`, isGone: true };
  }
  const answer = await askForReplay(ctx, reading);
  return turn.stopSignal.aborted ? toStopped(answer) : toAttempt(answer);
}

async function askForReplay(
  ctx: RunContext,
  { turn, watchdog, engine }: Omit<Reading, "stop">,
): Promise<StreamAnswer<UpstreamReader>> {
  const { replayAnswerMs, errorBodyMs } = ctx.turnTiming;
  const { lastEventId } = turn;
  using deadline = new Deadline(replayAnswerMs, [turn.stopSignal]);
  return await sendReplay(ctx.connections, engine, {
    taskId: turn.input.taskId,
    turnId: turn.input.turnId,
    lastEventId,
    signal: deadline.signal,
    errorBodyMs,
    onAccepted: (source) => {
      if (turn.state === "attaching") turn.markStreaming(ctx.clock.now());
      ctx.turnLog.touch(turn);
      watchdog.resume();
      return new UpstreamReader(ctx, {
        turn,
        watchdog,
        source,
        apiKey: engine.apiKey,
        replayAfter: lastEventId ?? "",
      });
    },
  });
}

function toStopped(answer: StreamAnswer<UpstreamReader>): AttachAttempt {
  if (answer.kind === "streaming") answer.close();
  return { kind: "stopped" };
}

function toAttempt(answer: StreamAnswer<UpstreamReader>): AttachAttempt {
  switch (answer.kind) {
    case "streaming":
      return { kind: "attached", stream: { sink: answer.sink, close: () => answer.close() } };
    case "unreachable":
    case "lost":
      return { kind: "failed", why: `the engine did not answer the request for a replay (${answer.why})` };
    case "refused": {
      const { status, code, message } = answer.error;
      if (status === 200) return { kind: "refused", why: message, isGone: false };
      const why = `the engine answered ${status} (${code}) to the request for a replay`;
      return status >= 500 ? { kind: "failed", why } : { kind: "refused", why, isGone: false };
    }
    case "not_a_stream": {
      const why = `the engine answered the request for a replay with ${answer.contentType}`;
      return { kind: "refused", why, isGone: false };
    }
  }
}
