/** Runs one statement for several calls of a scope: one result for each call, in the same order. */
type RunShared<Call, Result> = (scope: string, calls: readonly Call[]) => Promise<readonly Result[]>;

interface Waiting<Call, Result> {
  call: Call;
  result: PromiseWithResolvers<Result>;
}

interface Scope<Call, Result> {
  waiting: Waiting<Call, Result>[];
  /** Statements under way, without the late ones. */
  statements: number;
}

/** One would make every call wait for the one before. With more, the groups are smaller and save less. */
const MAX_STATEMENTS = 2;
const MAX_GROUP = 64;
/** A statement that takes longer than this does not hold up other calls any more. */
const LATE_MS = 100;

/**
 * Calls of one scope that arrive while two statements are under way share the next statement: each statement wakes a
 * process of Postgres, which costs more than the work itself.
 *
 *     1 ──────▶        3 4 5 ──────▶
 *       2 ─────────▶        6 7 ──────▶
 *         3 4 5 arrive ┘
 *
 * A statement always begins after its calls, so it sees everything that was committed before them. A connection that
 * hangs holds up only its own group.
 */
export class SharedStatements<Call, Result> {
  readonly #run: RunShared<Call, Result>;
  /** Scopes with calls that wait or have a statement under way. */
  readonly #scopes = new Map<string, Scope<Call, Result>>();

  constructor(run: RunShared<Call, Result>) {
    this.#run = run;
  }

  async add(name: string, call: Call): Promise<Result> {
    const result = Promise.withResolvers<Result>();
    const scope = this.#scopes.get(name) ?? { waiting: [], statements: 0 };
    this.#scopes.set(name, scope);
    scope.waiting.push({ call, result });
    this.#runNext(name, scope);
    return result.promise;
  }

  #runNext(name: string, scope: Scope<Call, Result>): void {
    while (scope.waiting.length > 0 && scope.statements < MAX_STATEMENTS) {
      void this.#runGroup(name, scope, scope.waiting.splice(0, MAX_GROUP));
    }
    if (scope.statements === 0 && this.#scopes.get(name) === scope) this.#scopes.delete(name);
  }

  /** Never rejects: each call gets its own result or error. */
  async #runGroup(
    name: string,
    scope: Scope<Call, Result>,
    group: readonly Waiting<Call, Result>[],
  ): Promise<void> {
    scope.statements += 1;
    let isCounted = true;
    const release = () => {
      if (!isCounted) return;
      isCounted = false;
      scope.statements -= 1;
      this.#runNext(name, scope);
    };
    const late = setTimeout(release, LATE_MS);
    try {
      const results = await this.#run(
        name,
        group.map(({ call }) => call),
      );
      if (results.length !== group.length) {
        throw new Error(`a group of ${group.length} calls got ${results.length} results`);
      }
      // The length was compared. A result may be undefined.
      for (const [index, { result }] of group.entries()) result.resolve(results[index] as Result);
    } catch (error) {
      for (const { result } of group) result.reject(error);
    } finally {
      clearTimeout(late);
      release();
    }
  }
}
