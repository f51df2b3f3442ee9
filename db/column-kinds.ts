import { sql, type SQL } from "drizzle-orm";
import { timestamp } from "drizzle-orm/pg-core";

/** An instant, as Postgres writes it: text, because a Date would lose the microseconds. */
export function instant(name: string) {
  return timestamp(name, { withTimezone: true, mode: "string" });
}

/** The condition that a column has one of these values. */
export function oneOf(column: string, values: readonly string[]): SQL {
  return sql.raw(`${column} in (${values.map((value) => `'${value}'`).join(", ")})`);
}
