import type { TurnRow } from "../../../db/turns.ts";
import { cancelTask } from "../../engine-contract/cancel.ts";
import { acquireEngine, type AcquireContext } from "../../engines/access/acquire-engine.ts";
import { callHolder } from "../../engines/access/hold-view.ts";
import { DomainError } from "../../errors.ts";
import { parseEnd } from "../model/turn-end.ts";
import { findLeftTurn } from "./find-left-turn.ts";
import type { RunContext } from "./run-context.ts";

export type StopLeftContext = AcquireContext &
  Pick<RunContext, "raw" | "connections" | "turnTiming" | "lingeringHolds" | "log">;

/**
 * For a turn that has ended here. If its engine may still work on it, asks the engine once to end it, and releases the
 * hold of the turn if the engine is done. Never asks while a later turn of the task may be what the engine works on.
 */
export async function stopLeftTurn(ctx: StopLeftContext, row: TurnRow): Promise<void> {
  if (row.end === null || !parseEnd(row.end).engineMayContinue) return;
  try {
    await stopAtEngine(ctx, row);
  } catch (error) {
    // The engine does not run, or has lost the turn with its memory. The turn has ended either way.
    if (!(error instanceof DomainError)) throw error;
    ctx.log.debug({ turnId: row.turnId, reason: error.reason }, "the engine of an ended turn was not asked");
  }
}

async function stopAtEngine(ctx: StopLeftContext, row: TurnRow): Promise<void> {
  const { productId, userId, engineId, generation, taskId, turnId } = row;
  const timeoutMs = ctx.turnTiming.cancelMs;
  using engine = await acquireEngine(ctx, {
    productId,
    userId,
    timeoutMs,
    expectGeneration: generation,
    holder: callHolder("turns.cancel"),
    // An operation that waits for the turn's hold would otherwise wait for its deadline.
    passesGate: () => ctx.lingeringHolds.find(engineId, taskId) !== undefined,
  });
  if (engine.engineId !== engineId) return;
  // Last before the request: a turn that has started since then must not be ended in place of this one.
  if ((await findLeftTurn(ctx, row))?.turnId !== turnId) return;
  const answer = await cancelTask(ctx.connections, engine, { taskId, timeoutMs });
  if (answer === "cancelled" || answer === "no_turn") {
    ctx.lingeringHolds.releaseFinished({ engineId, generation, taskId });
  }
}
