import type { Db } from "../../db/client.ts";
import { findPostgresError, isDatabaseUnavailable } from "../../db/postgres-error.ts";
import { DomainError } from "../errors.ts";

/** Writes all of them in one transaction, and answers each in its place. */
type GroupWrite<Item, Result> = (db: Db, items: readonly Item[]) => Promise<readonly Result[]>;

interface Waiting<Item, Result> {
  item: Item;
  answer: PromiseWithResolvers<Result>;
}

/** More than Postgres itself lets a statement take. */
const WRITE_MS = 40_000;
/** Bounds how long the head of a scope is locked, and how much is written again when one of them is refused. */
const MAX_GROUP = 32;

/*
 * Every change of a scope wants the one audit head until it is on disk, so one by one they cost a flush and a change of
 * hands each. Those that come while another is under way wait for its end and are then written together:
 *
 *   1 ──write──▶        2 3 4 ──write──▶        5 ──write──▶
 *      2 3 4 come ──────┘     5 comes ──────────┘
 */

/**
 * Makes a write of many into a write of one that shares its transaction with others of the scope; a call that is alone
 * waits for nobody. When the database refuses a group, each is tried by itself, so that nobody fails for another.
 */
export function toGrouped<Item, Result>(
  write: GroupWrite<Item, Result>,
): (db: Db, scope: string, item: Item) => Promise<Result> {
  /** Scopes that are being written, and who waits for that. */
  const waitingByDb = new WeakMap<Db, Map<string, Waiting<Item, Result>[]>>();
  return async (db, scope, item) => {
    const waitingByScope = waitingByDb.get(db) ?? new Map<string, Waiting<Item, Result>[]>();
    waitingByDb.set(db, waitingByScope);
    const own = { item, answer: Promise.withResolvers<Result>() };
    const waiting = waitingByScope.get(scope);
    if (waiting === undefined) {
      waitingByScope.set(scope, [own]);
      void writeScope((items) => write(db, items), waitingByScope, scope);
    } else {
      waiting.push(own);
    }
    return own.answer.promise;
  };
}

type BoundWrite<Item, Result> = (items: readonly Item[]) => Promise<readonly Result[]>;

/** Until nobody waits any more. Never rejects: whoever waits is told. */
async function writeScope<Item, Result>(
  write: BoundWrite<Item, Result>,
  waitingByScope: Map<string, Waiting<Item, Result>[]>,
  scope: string,
): Promise<void> {
  const waiting = waitingByScope.get(scope) ?? [];
  while (waiting.length > 0) await writeGroup(write, waiting.splice(0, MAX_GROUP));
  waitingByScope.delete(scope);
}

async function writeGroup<Item, Result>(
  write: BoundWrite<Item, Result>,
  group: readonly Waiting<Item, Result>[],
): Promise<void> {
  try {
    const results = await within(WRITE_MS, write(group.map(({ item }) => item)));
    if (results.length !== group.length) throw new Error("a group was not answered in full");
    for (const [index, result] of results.entries()) group[index]?.answer.resolve(result);
  } catch (error) {
    if (group.length > 1 && isRefusal(error)) {
      for (const one of group) await writeGroup(write, [one]);
    } else {
      for (const { answer } of group) answer.reject(error);
    }
  }
}

/** A connection that is dead and does not know it must not keep a scope waiting. Its outcome is unknown. */
async function within<Result>(ms: number, work: Promise<Result>): Promise<Result> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(unanswered()), ms);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function unanswered(): DomainError {
  return new DomainError("DATABASE_UNAVAILABLE", "the database did not answer", { retryAfterMs: 1_000 });
}

/** The database has said no, so nothing was written. An answer that did not come may be that of a commit. */
function isRefusal(error: unknown): boolean {
  return findPostgresError(error) !== undefined && !isDatabaseUnavailable(error);
}
