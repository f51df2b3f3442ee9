import type { EngineRowAt } from "../../../db/engines.ts";

/** The age of the present boot, in milliseconds by the database's clock; 0 if none has begun. */
export function toMsSinceBoot(row: Pick<EngineRowAt, "now" | "bootStartedAt">): number {
  return Date.parse(row.now) - Date.parse(row.bootStartedAt ?? row.now);
}
