import type { Brain } from "./brain.ts";
import { recordEvent } from "./event-log.ts";
import { endTurn, listRunningTurns } from "./turn-records.ts";

/** A turn that still runs in a brain just opened died with its process: its record and its replay get an end. */
export function interruptLeftoverTurns(brain: Pick<Brain, "sql" | "transaction">): number {
  return brain.transaction(() => {
    const turns = listRunningTurns(brain);
    for (const turn of turns) {
      endTurn(brain, turn.turnId, "interrupted");
      const timestamp = new Date().toISOString();
      recordEvent(brain, turn, {
        type: "thread_lifecycle",
        data: { phase: "errored", task_id: turn.taskId, turn_id: turn.turnId, timestamp },
      });
    }
    brain.sql.run`DELETE FROM pending_questions`;
    return turns.length;
  });
}
