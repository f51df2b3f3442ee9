import postgres from "postgres";

/**
 * Moves the database's idea of now, by an interval such as "1 hour" or "-90 seconds"; "0" puts it back. Every
 * statement of every connection that begins afterwards sees it.
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
