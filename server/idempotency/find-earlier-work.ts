import type { IdempotencyRecord } from "./idempotency-record.ts";

/**
 * The work that an earlier attempt with the same idempotency key recorded. `find` finds it by the noted subject, and
 * returns undefined if that work has ended without success. undefined: start new work.
 */
export async function findEarlierWork<Work>(
  idempotency: IdempotencyRecord,
  find: (subject: string) => Promise<Work | undefined>,
): Promise<Work | undefined> {
  if (!idempotency.resumed || idempotency.subject === null) return undefined;
  const work = await find(idempotency.subject);
  if (work === undefined) await idempotency.forgetSubject();
  return work;
}
