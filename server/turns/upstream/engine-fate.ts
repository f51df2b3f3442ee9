import { toErrorMessage } from "../../errors.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { toEndCause, type EndCause } from "../model/turn-end.ts";
import type { RunContext } from "./run-context.ts";

const STOPPED: readonly string[] = ["stopping", "stopped", "sleeping", "destroying"];

const PROCESS_ENDED =
  "the engine's process ended during the turn: the last lines of the engine's log say why";

/** What became of the process that has a turn. `unknown`: the runtime or the database did not answer. */
export type EngineFate = "same" | "unknown" | GoneFate;
export type GoneFate = "ENGINE_RESTARTED" | "ENGINE_STOPPED";

/** Observes the engine of a recorded turn, for up to `waitMs` if that is given. Never throws. */
export async function findEngineFate(
  ctx: Pick<RunContext, "log" | "reconciler">,
  turn: LiveTurn,
  waitMs?: number,
): Promise<EngineFate> {
  const record = turn.record;
  if (record === undefined) return "same";
  try {
    const engine = await ctx.reconciler.observeNow(record.engineId, waitMs);
    if (engine === undefined) return "ENGINE_STOPPED";
    if (STOPPED.includes(engine.status)) return "ENGINE_STOPPED";
    if (engine.generation !== record.generation || engine.status !== "running") return "ENGINE_RESTARTED";
    return engine.isCurrent ? "same" : "unknown";
  } catch (error) {
    // The process may live on.
    ctx.log.warn({ engineId: record.engineId, error: toErrorMessage(error) }, "cannot observe an engine");
    return "unknown";
  }
}

export function toInterrupted(reason: GoneFate): EndCause {
  const message = reason === "ENGINE_STOPPED" ? "the engine was stopped" : PROCESS_ENDED;
  return toEndCause("interrupted", reason, { message, engineMayContinue: false });
}
