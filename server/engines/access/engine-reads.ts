import type { EngineRow, EngineUser } from "../../../db/engines.ts";

/** Reads the engines of several users in one statement: one result for each user, in the same order. */
type ReadEngines = (users: readonly EngineUser[]) => Promise<readonly (EngineRow | undefined)[]>;

interface Waiting {
  user: EngineUser;
  result: PromiseWithResolvers<EngineRow | undefined>;
}

/** One would make every read wait for the one before. With more, the groups are smaller and save less. */
const MAX_STATEMENTS = 2;
const MAX_GROUP = 64;
/** A statement that takes longer than this does not hold up other reads any more. */
const LATE_MS = 100;

/**
 * Reads the engines of users. Reads that arrive while two statements are under way share the next statement: each
 * statement wakes a process of Postgres, which costs more than the read itself.
 *
 *     1 ──────▶        3 4 5 ──────▶
 *       2 ─────────▶        6 7 ──────▶
 *         3 4 5 arrive ┘
 *
 * A read always begins after its call, so it sees everything that was committed before the call. A connection that hangs
 * holds up only its own group.
 */
export class EngineReads {
  readonly #read: ReadEngines;
  #waiting: Waiting[] = [];
  /** Statements under way, without the late ones. */
  #statements = 0;

  constructor(read: ReadEngines) {
    this.#read = read;
  }

  /** undefined: the user has no engine. */
  async find(user: EngineUser): Promise<EngineRow | undefined> {
    const result = Promise.withResolvers<EngineRow | undefined>();
    this.#waiting.push({ user, result });
    this.#readNext();
    return result.promise;
  }

  #readNext(): void {
    while (this.#waiting.length > 0 && this.#statements < MAX_STATEMENTS) {
      void this.#readGroup(this.#waiting.splice(0, MAX_GROUP));
    }
  }

  /** Never rejects: each read gets its own result or error. */
  async #readGroup(group: readonly Waiting[]): Promise<void> {
    this.#statements += 1;
    let isCounted = true;
    const release = () => {
      if (!isCounted) return;
      isCounted = false;
      this.#statements -= 1;
      this.#readNext();
    };
    const late = setTimeout(release, LATE_MS);
    try {
      const rows = await this.#read(group.map(({ user }) => user));
      for (const [index, { result }] of group.entries()) result.resolve(rows[index]);
    } catch (error) {
      for (const { result } of group) result.reject(error);
    } finally {
      clearTimeout(late);
      release();
    }
  }
}
