import type { Brain } from "./brain.ts";
import type { EngineEvent } from "./engine-event.ts";

const RETENTION_MS = 24 * 3_600_000;

/** A recorded event. `at` is its time in milliseconds and its position in the log: no two events share one. */
export interface LoggedEvent {
  readonly at: number;
  readonly taskId: string;
  readonly turnId: string;
  readonly type: string;
  /** JSON text of an object. */
  readonly data: string;
}

/**
 * Records an event. When there is more than one event per millisecond, `at` runs ahead of the clock. So a replay after
 * the last known `at` neither misses nor repeats an event.
 */
export function recordEvent(
  brain: Pick<Brain, "sql">,
  turn: { readonly taskId: string; readonly turnId: string },
  event: EngineEvent,
): void {
  brain.sql.run`
    INSERT INTO events (at, task_id, turn_id, type, data)
    VALUES (max(${Date.now()}, (SELECT coalesce(max(at), 0) + 1 FROM events)),
      ${turn.taskId}, ${turn.turnId}, ${event.type}, ${JSON.stringify(event.data)})`;
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

export function forgetOldEvents(brain: Pick<Brain, "sql">): void {
  brain.sql.run`DELETE FROM events WHERE at < ${Date.now() - RETENTION_MS}`;
}
