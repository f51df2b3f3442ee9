import postgres from "postgres";

/**
 * Shifts `orch_now()` by an interval such as "1 hour" or "-90 seconds"; "0" resets it. Applies to every statement that
 * begins later, on every connection.
 */
export async function shiftDatabaseClock(url: string, interval: string): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
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
