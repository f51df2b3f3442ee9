import { toEndCause } from "./model/turn-end.ts";
import type { RunContext } from "./upstream/run-context.ts";

type DrainContext = Pick<RunContext, "turns" | "turnLog" | "turnTiming" | "lingeringHolds" | "clock">;

const DRAINED = toEndCause("interrupted", "DRAINING", { message: "the replica is shutting down" });
/** The engine keeps its question, and `turns.respond` for the user and the task still reaches it. */
const AWAITING_HUMAN = toEndCause("interrupted", "AWAITING_HUMAN", {
  message:
    "the replica is shutting down while the turn waits for a person; " +
    "the engine may still take the answer: send it to POST /trpc/turns.respond with userId and taskId",
});

/**
 * Refuses new turns, and waits for the live ones up to `ms` or until `hurry` aborts. What is left then goes to the next
 * owner if the engine numbers its events, and ends otherwise. Returns when all is written.
 */
export async function drainTurns(ctx: DrainContext, ms: number, hurry?: AbortSignal): Promise<void> {
  const { turns, turnLog, turnTiming } = ctx;
  turns.refuseNew();
  await untilAllOver(ctx, ms, hurry);
  for (const turn of turns.list()) {
    if (turn.leaveToNextOwner()) continue;
    turn.stop(turn.questions.isEmpty ? DRAINED : AWAITING_HUMAN);
  }
  await untilAllOver(ctx, turnTiming.closeMs);
  ctx.lingeringHolds.close();
  await turnLog.close(turnTiming.closeMs);
  turns.close();
}

/** Hands the readers over, and leaves or ends every turn at once. */
export async function closeTurns(ctx: DrainContext): Promise<void> {
  ctx.turns.handOver();
  await drainTurns(ctx, 0);
}

async function untilAllOver(ctx: DrainContext, ms: number, hurry?: AbortSignal): Promise<void> {
  const giveUp = new AbortController();
  const signal = hurry ? AbortSignal.any([giveUp.signal, hurry]) : giveUp.signal;
  const over = Promise.all(ctx.turns.list().map(async (turn) => turn.until("over")));
  const timeout = ctx.clock.sleep(ms, signal).catch(() => {
    // All turns are over, or `hurry` aborted.
  });
  await Promise.race([over, timeout]);
  giveUp.abort();
}
