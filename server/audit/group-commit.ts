import { findPostgresError, isConflict, isDatabaseUnavailable } from "../../db/postgres-error.ts";
import { DomainError } from "../errors.ts";

/** Writes all items in one transaction. Returns one result for each item, in the same order. */
type GroupWrite<Item, Result> = (items: readonly Item[]) => Promise<readonly Result[]>;

interface Waiting<Item, Result> {
  item: Item;
  result: PromiseWithResolvers<Result>;
}

/** Longer than Postgres lets any statement run (`statement_timeout`). */
const WRITE_MS = 40_000;
/** Bounds how long the head of a scope is locked, and how many items are tried again if one of them is refused. */
const MAX_GROUP = 32;

/**
 * Writes the changes of one scope in groups, so that changes that arrive together share a transaction. Each change
 * locks the scope's audit head until its commit, so single transactions would wait for each other's disk flush.
 *
 *     1 ──write──▶        2 3 4 ──write──▶        5 ──write──▶
 *        2 3 4 arrive ────┘     5 arrives ────────┘
 *
 * A change that arrives alone is written at once. If Postgres refuses a group, each of its changes is tried alone, so
 * a bad change fails only itself.
 */
export class GroupCommit<Item, Result> {
  readonly #write: GroupWrite<Item, Result>;
  /** Scopes that are being written, each with the items that wait for the next group. */
  readonly #waitingByScope = new Map<string, Waiting<Item, Result>[]>();

  constructor(write: GroupWrite<Item, Result>) {
    this.#write = write;
  }

  async add(scope: string, item: Item): Promise<Result> {
    const own = { item, result: Promise.withResolvers<Result>() };
    const waiting = this.#waitingByScope.get(scope);
    if (waiting === undefined) void this.#writeScope(scope, [own]);
    else waiting.push(own);
    return own.result.promise;
  }

  /** Writes until no item of the scope waits. Never rejects: each item gets its own result or error. */
  async #writeScope(scope: string, waiting: Waiting<Item, Result>[]): Promise<void> {
    this.#waitingByScope.set(scope, waiting);
    while (waiting.length > 0) await this.#writeGroup(waiting.splice(0, MAX_GROUP));
    this.#waitingByScope.delete(scope);
  }

  async #writeGroup(group: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await within(WRITE_MS, this.#write(group.map(({ item }) => item)));
      if (results.length !== group.length) {
        throw new Error(`a group of ${group.length} items got ${results.length} results`);
      }
      for (const [index, result] of results.entries()) group[index]?.result.resolve(result);
    } catch (error) {
      if (group.length > 1 && isRefusal(error)) {
        for (const one of group) await this.#writeGroup([one]);
      } else {
        for (const { result } of group) result.reject(error);
      }
    }
  }
}

/** Bounds a write, so that a connection that died unnoticed does not block its scope. The outcome is then unknown. */
async function within<Result>(ms: number, work: Promise<Result>): Promise<Result> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(unanswered(ms)), ms);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function unanswered(ms: number): DomainError {
  const message = `the database did not answer within ${ms} ms: try again later`;
  return new DomainError("DATABASE_UNAVAILABLE", message, { retryAfterMs: 1_000 });
}

/** True if Postgres refused the statement, so nothing was written. A lost reply may hide a commit. */
function isRefusal(error: unknown): boolean {
  return isConflict(error) || (findPostgresError(error) !== undefined && !isDatabaseUnavailable(error));
}
