import type { Db } from "../../db/client.ts";

/** The idempotency record of a call, as the called operation sees it. */
export interface IdempotencyRecord {
  /** True if an earlier attempt with the same key and input did not finish. */
  readonly resumed: boolean;
  /** What the earlier attempt noted; null if it recorded no work. */
  readonly subject: string | null;
  /**
   * Notes what the work is about (an engine id, a key hash), in the transaction that records the work. From the commit
   * on, a call that fails keeps the record, and a retry resumes the work.
   */
  setSubject(tx: Db, subject: string): Promise<void>;
  /** Says that the noted work has ended without success: a retry starts new work. Never throws. */
  forgetSubject(): Promise<void>;
  /** Stores the reply in the transaction that has the whole effect, so that no crash can come between the two. */
  complete(tx: Db, reply: unknown): Promise<void>;
}

/** The record of a call without an idempotency key: nothing is stored. */
export const NO_RECORD: IdempotencyRecord = {
  resumed: false,
  subject: null,
  setSubject: () => Promise.resolve(),
  forgetSubject: () => Promise.resolve(),
  complete: () => Promise.resolve(),
};
