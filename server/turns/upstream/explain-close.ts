import type { LiveTurn } from "../model/live-turn.ts";
import { toEndCause, type EndCause } from "../model/turn-end.ts";
import { findEngineFate, toInterrupted } from "./engine-fate.ts";
import { explainMissingEnd, type StreamSeen } from "./explain-missing-end.ts";
import type { RunContext } from "./run-context.ts";

type ExplainContext = Pick<RunContext, "clock" | "log" | "reconciler" | "turnTiming">;

const CHECK_INTERVAL_MS = 250;

export interface StreamClose {
  /** True if the engine ended its answer properly. */
  isClean: boolean;
  why: string;
  seen: StreamSeen;
}

/**
 * Why an engine closed its stream without a terminal event: its process is gone, or it just closed. The process is
 * checked for a while after a broken stream, because a runtime sees a dead process later than its peers do.
 */
export async function explainClose(
  ctx: ExplainContext,
  turn: LiveTurn,
  close: StreamClose,
): Promise<EndCause> {
  const { clock } = ctx;
  const until = close.isClean ? 0 : clock.now() + ctx.turnTiming.brokenMs;
  for (;;) {
    const fate = await findEngineFate(ctx, turn);
    if (fate !== "same" && fate !== "unknown") return toInterrupted(fate);
    if (turn.stopCause) return turn.stopCause;
    if (clock.now() >= until || turn.stopSignal.aborted) break;
    await clock.sleep(CHECK_INTERVAL_MS, turn.stopSignal).catch(() => {
      // The turn was stopped: the next round sees the cause.
    });
  }
  return toEndCause("failed", "ENGINE_CLOSED", {
    message: close.isClean
      ? explainMissingEnd(close.seen)
      : `the connection broke before the last event of the stream (${close.why})`,
    // An engine that ended its answer properly is done.
    engineMayContinue: !close.isClean,
  });
}
