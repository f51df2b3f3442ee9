import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";

/** Deletes the counts of past hours. The present hour and the one before stay. Returns how many there were. */
export async function removeOldStoredBytes(db: Db): Promise<number> {
  const rows = await db.execute(
    sql`delete from stored_bytes where hour < date_trunc('hour', orch_now(), 'UTC') - interval '1 hour' returning scope`,
  );
  return rows.length;
}
