import { sql } from "drizzle-orm";
import { bigint, customType, timestamp } from "drizzle-orm/pg-core";

/* What the schemas share. */

export const at = (name: string) => timestamp(name, { withTimezone: true, mode: "string" });
export const long = (name: string) => bigint(name, { mode: "number" });
export const bytes = customType<{ data: Uint8Array }>({ dataType: () => "bytea" });

export const oneOf = (column: string, values: readonly string[]) =>
  sql.raw(`${column} in (${values.map((value) => `'${value}'`).join(", ")})`);
