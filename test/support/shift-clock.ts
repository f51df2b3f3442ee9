import postgres from "postgres";
import { inject } from "vitest";
import { toDatabaseUrl } from "./test-database.ts";

/**
 * Shifts `orch_now()` by an interval such as "1 hour" or "-90 seconds"; "0" resets it. Applies to every statement that
 * begins later, on every connection. Takes any url of the database.
 */
export async function shiftDatabaseClock(url: string, interval: string): Promise<void> {
  // Only the owner of the function may replace it.
  const adminUrl = toDatabaseUrl(inject("databaseAdminUrl"), new URL(url).pathname.slice(1));
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} });
  try {
    const [row] = await sql`select quote_literal(${interval}::interval::text) as shift`;
    await sql.unsafe(
      `create or replace function orch_now() returns timestamptz language sql stable
       as $$ select statement_timestamp() + interval ${row?.["shift"]} $$`,
    );
  } finally {
    await sql.end();
  }
}
