import type { Db } from "../../db/client.ts";

/** What a verb sees of the idempotency key that it was called with. */
export interface IdempotencyRecord {
  /** True when an earlier attempt with this key and input died midway: resume it, do not repeat it. */
  readonly resumed: boolean;
  /** What the earlier attempt noted, null when it noted nothing. */
  readonly subject: string | null;
  /** Notes, in the transaction that writes the intent, what this attempt is about (an engine id, a key hash). */
  setSubject(tx: Db, subject: string): Promise<void>;
  /** Stores the reply in the transaction that has the whole effect, so that no crash can come between. */
  complete(tx: Db, reply: unknown): Promise<void>;
}

/** The claim of a call without an idempotency key. */
export const NO_RECORD: IdempotencyRecord = {
  resumed: false,
  subject: null,
  setSubject: () => Promise.resolve(),
  complete: () => Promise.resolve(),
};
