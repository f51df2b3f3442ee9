import type { Brain } from "./brain.ts";

type Sql = Pick<Brain, "sql">;

/** In tokens, which are words here. `cachedInput` is the part of `input` that an earlier turn already contained. */
export interface Usage {
  readonly input: number;
  readonly cachedInput: number;
  readonly output: number;
}

export interface TurnKey {
  readonly turnId: string;
  readonly taskId: string;
}

/** A turn and the name that its caller gave it; null if the caller gave none. */
export interface NamedTurn {
  readonly turnId: string;
  readonly callerTurnId: string | null;
}

export function addTurn(brain: Sql, turn: TurnKey & NamedTurn): void {
  brain.sql.run`
    INSERT INTO turns (turn_id, task_id, caller_turn_id, status, started_at)
    VALUES (${turn.turnId}, ${turn.taskId}, ${turn.callerTurnId}, 'running', ${new Date().toISOString()})`;
}

export function findNewestTurn(brain: Sql, taskId: string): NamedTurn | undefined {
  const row = brain.sql.get`
    SELECT turn_id AS turnId, caller_turn_id AS callerTurnId FROM turns
    WHERE task_id = ${taskId} ORDER BY rowid DESC LIMIT 1`;
  return row as unknown as NamedTurn | undefined;
}

export function findTurn(brain: Sql, turnId: string): NamedTurn | undefined {
  const row = brain.sql.get`
    SELECT turn_id AS turnId, caller_turn_id AS callerTurnId FROM turns WHERE turn_id = ${turnId}`;
  return row as unknown as NamedTurn | undefined;
}

export function endTurn(brain: Sql, turnId: string, status: "completed" | "failed" | "interrupted"): void {
  brain.sql.run`
    UPDATE turns SET status = ${status}, ended_at = ${new Date().toISOString()}
    WHERE turn_id = ${turnId} AND status = 'running'`;
}

export function setTurnUsage(brain: Sql, turnId: string, usage: Usage): void {
  brain.sql.run`
    UPDATE turns SET input_tokens = ${usage.input}, cached_input_tokens = ${usage.cachedInput},
      output_tokens = ${usage.output} WHERE turn_id = ${turnId}`;
}

export function listRunningTurns(brain: Sql): TurnKey[] {
  const rows = brain.sql.all`SELECT turn_id AS turnId, task_id AS taskId FROM turns WHERE status = 'running'`;
  return rows as unknown as TurnKey[];
}

export function sumUsage(brain: Sql): Usage & { readonly turns: number } {
  const row = brain.sql.get`
    SELECT count(*) AS turns, coalesce(sum(input_tokens), 0) AS input,
      coalesce(sum(cached_input_tokens), 0) AS cachedInput, coalesce(sum(output_tokens), 0) AS output FROM turns`;
  return {
    turns: Number(row?.["turns"]),
    input: Number(row?.["input"]),
    cachedInput: Number(row?.["cachedInput"]),
    output: Number(row?.["output"]),
  };
}
