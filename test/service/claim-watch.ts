import postgres from "postgres";
import { expect } from "vitest";

export interface ClaimWatch extends AsyncDisposable {
  /** Resolves once the service has claimed the key, with which its work for the call begins. */
  untilClaimed(idempotencyKey: string): Promise<void>;
}

/** Sees in the database what the service has begun, which nobody else can tell before the answer comes. */
export function openClaimWatch(databaseUrl: string): ClaimWatch {
  const sql = postgres(databaseUrl, { max: 1 });
  return {
    untilClaimed: async (idempotencyKey) => {
      const find = async () => sql`select key from idempotency where key = ${idempotencyKey}`;
      await expect.poll(find, { interval: 5 }).toHaveLength(1);
    },
    [Symbol.asyncDispose]: async () => sql.end(),
  };
}
