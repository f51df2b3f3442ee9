import type { Brain } from "./brain.ts";
import type { EngineEvent } from "./engine-event.ts";

const RETENTION_MS = 24 * 3_600_000;

/**
 * A recorded event. `at` is its time in milliseconds and its position in the log: no two events share one. So it is the
 * event's id in the stream too, and the ids of a task grow from turn to turn.
 */
export interface LoggedEvent {
  readonly at: number;
  readonly taskId: string;
  readonly turnId: string;
  readonly type: string;
  /** JSON text of an object. */
  readonly data: string;
}

/**
 * Records an event and returns its `at`. When there is more than one event per millisecond, `at` runs ahead of the clock.
 * So a replay after the last known `at` neither misses nor repeats an event.
 */
export function recordEvent(
  brain: Pick<Brain, "sql">,
  turn: { readonly taskId: string; readonly turnId: string },
  event: EngineEvent,
): number {
  const row = brain.sql.get`
    INSERT INTO events (at, task_id, turn_id, type, data)
    VALUES (max(${Date.now()}, (SELECT coalesce(max(at), 0) + 1 FROM events)),
      ${turn.taskId}, ${turn.turnId}, ${event.type}, ${JSON.stringify(event.data)})
    RETURNING at`;
  return Number(row?.["at"]);
}

export function findLastEventAt(brain: Pick<Brain, "sql">): number {
  return Number(brain.sql.get`SELECT coalesce(max(at), 0) AS at FROM events`?.["at"]);
}

/** At most `limit` events with `after < at <= upTo`, oldest first. */
export function listEvents(
  brain: Pick<Brain, "sql">,
  range: { readonly after: number; readonly upTo: number; readonly limit: number },
): LoggedEvent[] {
  const rows = brain.sql.all`
    SELECT at, task_id AS taskId, turn_id AS turnId, type, data FROM events
    WHERE at > ${range.after} AND at <= ${range.upTo} ORDER BY at LIMIT ${range.limit}`;
  return rows as unknown as LoggedEvent[];
}

/** At most `limit` events of one turn with `after < at`, oldest first. */
export function listTurnEvents(
  brain: Pick<Brain, "sql">,
  range: { readonly turnId: string; readonly after: number; readonly limit: number },
): Pick<LoggedEvent, "at" | "type" | "data">[] {
  const rows = brain.sql.all`
    SELECT at, type, data FROM events
    WHERE turn_id = ${range.turnId} AND at > ${range.after} ORDER BY at LIMIT ${range.limit}`;
  return rows as unknown as Pick<LoggedEvent, "at" | "type" | "data">[];
}

/** The turn that has this event; undefined: the task never had such an event, or the event is no longer kept. */
export function findTurnOfEvent(
  brain: Pick<Brain, "sql">,
  event: { readonly taskId: string; readonly at: number },
): string | undefined {
  const row = brain.sql.get`
    SELECT turn_id AS turnId FROM events WHERE at = ${event.at} AND task_id = ${event.taskId}`;
  return row && String(row["turnId"]);
}

/** Keeps all events of a turn until the turn has ended: a turn may wait for a person for days. */
export function forgetOldEvents(brain: Pick<Brain, "sql">): void {
  brain.sql.run`
    DELETE FROM events WHERE at < ${Date.now() - RETENTION_MS}
      AND turn_id NOT IN (SELECT turn_id FROM turns WHERE status = 'running')`;
}
