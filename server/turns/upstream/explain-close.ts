import { toErrorMessage } from "../../errors.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { toEndCause, type EndCause } from "../model/turn-end.ts";
import { explainMissingEnd, type StreamSeen } from "./explain-missing-end.ts";
import type { RunContext } from "./run-context.ts";

type ExplainContext = Pick<RunContext, "clock" | "log" | "reconciler" | "turnTiming">;

const CHECK_INTERVAL_MS = 250;

const PROCESS_ENDED =
  "the engine's process ended during the turn: the last lines of the engine's log say why";

const STOPPED: readonly string[] = ["stopping", "stopped", "sleeping", "destroying"];

export interface StreamClose {
  /** True if the engine ended its answer properly. */
  isClean: boolean;
  why: string;
  seen: StreamSeen;
}

type Fate = "same" | "ENGINE_RESTARTED" | "ENGINE_STOPPED";

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
    const fate = await findFate(ctx, turn);
    if (fate !== "same") return toInterrupted(fate);
    if (turn.stopCause) return turn.stopCause;
    if (clock.now() >= until) break;
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

async function findFate(ctx: ExplainContext, turn: LiveTurn): Promise<Fate> {
  const record = turn.record;
  if (record === undefined) return "same";
  try {
    const engine = await ctx.reconciler.observeNow(record.engineId);
    if (engine === undefined) return "ENGINE_STOPPED";
    if (STOPPED.includes(engine.status)) return "ENGINE_STOPPED";
    if (engine.generation !== record.generation || engine.status !== "running") return "ENGINE_RESTARTED";
    return "same";
  } catch (error) {
    // The process may live on.
    ctx.log.warn({ engineId: record.engineId, error: toErrorMessage(error) }, "cannot observe an engine");
    return "same";
  }
}

function toInterrupted(reason: Exclude<Fate, "same">): EndCause {
  const message = reason === "ENGINE_STOPPED" ? "the engine was stopped" : PROCESS_ENDED;
  return toEndCause("interrupted", reason, { message, engineMayContinue: false });
}
