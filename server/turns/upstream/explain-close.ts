import { toErrorMessage } from "../../errors.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { toEndCause, type EndCause } from "../model/turn-end.ts";
import type { TurnRegistry } from "../turn-registry.ts";

const ASK_AGAIN_MS = 250;

const STOPPED: readonly string[] = ["stopping", "stopped", "sleeping", "destroying"];

type Fate = "same" | "ENGINE_RESTARTED" | "ENGINE_STOPPED";

/**
 * Why an engine closed its stream without a last word: its process is gone or another, or it just closed. A stream
 * that broke is asked about for a while, because a runtime sees the death of a process later than its peers do.
 */
export async function explainClose(
  registry: TurnRegistry,
  turn: LiveTurn,
  close: { isClean: boolean; why: string },
): Promise<EndCause> {
  const { clock } = registry.options;
  const until = close.isClean ? 0 : clock.now() + registry.timing.brokenMs;
  for (;;) {
    const fate = await findFate(registry, turn);
    if (fate !== "same") return toInterrupted(fate);
    if (turn.stopCause) return turn.stopCause;
    if (clock.now() >= until) break;
    await clock.sleep(ASK_AGAIN_MS, turn.stopSignal).catch(() => {
      // Somebody knows better how the turn ends: seen above.
    });
  }
  return toEndCause("failed", "ENGINE_CLOSED", {
    message: `the engine closed the stream without a last word (${close.why})`,
    // A response that was ended properly was ended by an engine that is done.
    engineMayContinue: !close.isClean,
  });
}

async function findFate(registry: TurnRegistry, turn: LiveTurn): Promise<Fate> {
  const record = turn.record;
  if (record === undefined) return "same";
  try {
    const engine = await registry.options.refreshEngine(record.engineId);
    if (engine === undefined) return "ENGINE_STOPPED";
    if (STOPPED.includes(engine.status)) return "ENGINE_STOPPED";
    if (engine.generation !== record.generation || engine.status !== "running") return "ENGINE_RESTARTED";
    return "same";
  } catch (error) {
    // Unknown is not gone.
    registry.options.log.warn(
      { engineId: record.engineId, error: toErrorMessage(error) },
      "cannot look at an engine",
    );
    return "same";
  }
}

function toInterrupted(reason: Exclude<Fate, "same">): EndCause {
  const message = reason === "ENGINE_STOPPED" ? "the engine was stopped" : "the engine's process ended";
  return toEndCause("interrupted", reason, { message, engineMayContinue: false });
}
