import postgres from "postgres";
import { expect } from "vitest";

export interface IdempotencyWatch extends AsyncDisposable {
  /** Resolves once the service has reserved the key, which is the first step of its work for the call. */
  untilReserved(idempotencyKey: string): Promise<void>;
}

/** Observes in the database when the service begins its work on a call, which is before its reply. */
export function openIdempotencyWatch(databaseUrl: string): IdempotencyWatch {
  const sql = postgres(databaseUrl, { max: 1 });
  return {
    untilReserved: async (idempotencyKey) => {
      const find = async () => sql`select key from idempotency where key = ${idempotencyKey}`;
      await expect.poll(find, { interval: 5 }).toHaveLength(1);
    },
    [Symbol.asyncDispose]: async () => sql.end(),
  };
}
