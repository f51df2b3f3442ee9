import type { Brain } from "./brain.ts";
import { recordEvent } from "./event-log.ts";
import { endTurn, listRunningTurns } from "./turn-records.ts";

/** Ends the turns that a killed engine left `running` in the brain, in their records and in the replay. */
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
