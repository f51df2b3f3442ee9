import { readTurnRemains, type TurnRow } from "../../../db/turns.ts";
import type { EngineAddress } from "../../engine-contract/engine-address.ts";
import type { EngineHold, HoldContext } from "../../engines/access/hold-engine.ts";
import { toErrorMessage } from "../../errors.ts";
import type { FairSlots } from "../../time/fair-slots.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import type { EndCause } from "../model/turn-end.ts";
import { attachToReplay, untilAttached, type AttachAttempt } from "../upstream/attach-to-replay.ts";
import type { IdleWatchdog } from "../upstream/idle-watchdog.ts";
import { readToEnd } from "../upstream/read-to-end.ts";
import { StopAtEngine } from "../upstream/stop-at-engine.ts";
import type { RunContext } from "../upstream/run-context.ts";
import { concludeTurn, endTurn, superviseTurn, toStopped, type TurnResult } from "../upstream/run-turn.ts";
import type { TurnEvent } from "../read/turn-batch.ts";
import { findTerminalCause } from "../upstream/terminal-event.ts";
import { toLostOwnerEnd } from "./lost-owner-end.ts";
import { restoreQuestions } from "./restore-questions.ts";
import type { SharedObservations } from "./shared-observations.ts";

export type TakeOverContext = RunContext & Pick<HoldContext, "holds" | "openedKeys">;

export interface TakenTurnInput {
  turn: LiveTurn;
  /** As it was taken over. */
  row: TurnRow;
  /** For the attempts to attach. Each engine is a key of its own. */
  slots: FairSlots;
  /** Shared by all turns that were taken over together. */
  observer: SharedObservations;
}

/**
 * Takes a turn of a dead owner to its end: attaches to the engine's replay after the last event in the log and reads on,
 * or ends the turn where that is impossible. Holds the engine from the call on. Never throws.
 */
export async function runTakenTurn(ctx: TakeOverContext, input: TakenTurnInput): Promise<void> {
  const { turn, row } = input;
  try {
    const held = await holdEngineOf(ctx, input);
    if (held === undefined) return await concludeTurn(ctx, { turn, held }, toStopped(turn));
    const { interrupted } = held;
    await superviseTurn(ctx, { turn, held }, async (watchdog) =>
      readTakenTurn(ctx, { ...input, interrupted }, watchdog),
    );
  } catch (error) {
    // A defect of ours. The turn still has to end: a row that stayed would keep its task busy.
    ctx.log.error({ turnId: row.turnId, error: toErrorMessage(error) }, "a turn could not be taken over");
    const cause = toLostOwnerEnd(row.status, "the service failed to take it over");
    if (!turn.isOver && !turn.hasEnd) await endTurn(ctx, turn, { cause });
  }
}

/** Waits while an operation has closed the engine's gate. undefined: the turn was stopped during the wait. */
async function holdEngineOf(
  ctx: TakeOverContext,
  { turn, row }: TakenTurnInput,
): Promise<EngineHold | undefined> {
  const { engineId, generation } = row;
  try {
    return {
      ...(await ctx.holds.acquire(engineId, turn.stopSignal, { holder: turn })),
      engineId,
      generation,
    };
  } catch (error) {
    if (turn.stopSignal.aborted) return undefined;
    throw error;
  }
}

async function readTakenTurn(
  ctx: TakeOverContext,
  input: TakenTurnInput & Pick<EngineHold, "interrupted">,
  watchdog: IdleWatchdog,
): Promise<TurnResult> {
  const { turn, row, interrupted } = input;
  const fields = { turnId: row.turnId, engineId: row.engineId };
  // Until the engine is read, its silence does not count.
  watchdog.pause();
  const opening: Opening = { ...input, watchdog, engine: undefined };
  const untilMs = ctx.clock.now() + ctx.turnTiming.attachMs;
  const attempt = async () => tryAttach(ctx, opening);
  const attachment = await untilAttached(ctx, turn, { untilMs, attempt });
  const { engine } = opening;
  if (attachment.kind === "stopped") return toStopped(turn);
  if (attachment.kind === "over") {
    turn.markComplete();
    return { kind: "ended", cause: attachment.cause };
  }
  if (attachment.kind === "refused" || engine === undefined) {
    const { why, isGone } = attachment.kind === "refused" ? attachment : NO_ENGINE;
    ctx.log.warn({ ...fields, why }, "a turn of a dead replica cannot be read on");
    return { kind: "unreadable", cause: toLostOwnerEnd(row.status, why, isGone) };
  }
  ctx.log.info({ ...fields, afterSeq: row.lastSeq }, "a turn of a dead replica goes on");
  const toUnreadable = (why: string): EndCause => toLostOwnerEnd(row.status, why);
  const { stream } = attachment;
  const stop = new StopAtEngine(ctx, { turn, held: { ...engine, interrupted } });
  const end = await readToEnd(ctx, { turn, watchdog, engine, stop }, { stream, toUnreadable });
  const result = end.kind === "stopped" ? toStopped(turn) : end;
  return result.kind === "ended" ? { ...result, cause: await stop.endAtEngine(result.cause) } : result;
}

interface Opening extends TakenTurnInput {
  watchdog: IdleWatchdog;
  /** Known after the first attempt that reached the database. */
  engine: EngineAddress | undefined;
}

const NO_ENGINE = { kind: "refused", why: "the engine has no address any more", isGone: true } as const;

async function tryAttach(ctx: TakeOverContext, opening: Opening): Promise<AttachAttempt> {
  const { turn, row, slots, observer, watchdog } = opening;
  try {
    using _slot = await slots.take(row.engineId, turn.stopSignal);
    if (opening.engine === undefined) {
      const over = await resumeFromLog(ctx, opening);
      if (over) return over;
    }
    const { engine } = opening;
    if (engine === undefined) return NO_ENGINE;
    return await attachToReplay({ ...ctx, reconciler: observer }, { turn, watchdog, engine });
  } catch (error) {
    if (turn.stopSignal.aborted) return { kind: "stopped" };
    return { kind: "failed", why: toErrorMessage(error) };
  }
}

/** Reads what is needed besides the turn's row. `opening` gets no engine if the engine is gone. */
async function resumeFromLog(
  ctx: TakeOverContext,
  opening: Opening,
): Promise<Extract<AttachAttempt, { kind: "over" }> | undefined> {
  const { turn, row } = opening;
  const { engineEventId, logBytes, lastChunk, engine } = await readTurnRemains(ctx.raw, row);
  const apiKey = engine ? ctx.openedKeys.open(engine) : "";
  const [opened] = await ctx.seals.open(row, lastChunk === null ? [] : [lastChunk]);
  const last = (JSON.parse(opened?.events ?? "[]") as TurnEvent[]).at(-1);
  const { secrets } = ctx.connections;
  const cause = last && findTerminalCause(last.type, last.data, engine ? secrets.and(apiKey) : secrets);
  if (cause) return { kind: "over", cause };
  if (engine?.endpoint == null) return undefined;
  await restoreQuestions(ctx, row, turn.questions);
  turn.resumeLog({ engineEventId, bytes: logBytes });
  opening.engine = { endpoint: engine.endpoint, apiKey };
  return undefined;
}
