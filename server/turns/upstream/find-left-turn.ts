import { listTaskTurns, type TurnRow } from "../../../db/turns.ts";
import { parseEnd } from "../model/turn-end.ts";
import type { TurnContext } from "../turn-context.ts";

/** A turn that has ended here while its engine may still work on it. */
export interface LeftTurn {
  turnId: string;
  /** Of its end. */
  reason: string;
  /** In milliseconds. */
  endedAt: number;
}

export interface EngineTask extends Pick<
  TurnRow,
  "productId" | "userId" | "taskId" | "engineId" | "generation"
> {
  /** A turn to leave out: the one that is being started. */
  exceptTurnId?: string;
}

/** An engine has one turn of a task, so its newest turns decide. Turns that it refused are between them. */
const NEWEST = 20;

/** The turn of a task that its engine may still work on although it has ended here. undefined: none is known. */
export async function findLeftTurn(
  { raw }: Pick<TurnContext, "raw">,
  { exceptTurnId, ...task }: EngineTask,
): Promise<LeftTurn | undefined> {
  const rows = await listTaskTurns(raw, { ...task, limit: NEWEST });
  return toLeftTurn(rows.filter(({ turnId }) => turnId !== exceptTurnId));
}

/** `rows` are the turns that one process of the engine got for the task, newest first. */
function toLeftTurn(rows: readonly TurnRow[]): LeftTurn | undefined {
  for (const { turnId, end, endedAt } of rows) {
    // The engine works on a live turn, and has completed what came before a completed one.
    if (end === null || endedAt === null) return undefined;
    const { status, reason, engineMayContinue } = parseEnd(end);
    if (engineMayContinue) return { turnId, reason: reason ?? status, endedAt: Date.parse(endedAt) };
    if (status === "completed") return undefined;
  }
  return undefined;
}
