import { sql } from "drizzle-orm";

export const orchNow = sql`orch_now()`;
