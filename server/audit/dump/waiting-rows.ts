import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { CheckedLink } from "../chain-check.ts";

const CACHE_KB = 64 * 1024;

/**
 * Keeps rows until the rows before them have come. A dump has rows in the order of their pages, which is mostly but not
 * always their order in the chain. SQLite puts what does not fit into the cache into a file that ends with the process.
 */
export class WaitingRows implements Disposable {
  readonly #database = new DatabaseSync("");
  readonly #add: StatementSync;
  readonly #take: StatementSync;
  readonly #counts = new Map<string, number>();

  constructor() {
    this.#database.exec(`
      pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -${CACHE_KB};
      create table waiting (scope text, seq integer, prev_hash text, hash text, intact integer, primary key (scope, seq))
        without rowid;
      begin`);
    this.#add = this.#database.prepare("insert or ignore into waiting values (?, ?, ?, ?, ?)");
    this.#take = this.#database.prepare("delete from waiting where scope = ? and seq = ? returning *");
  }

  count(scope: string): number {
    return this.#counts.get(scope) ?? 0;
  }

  /** False: a row of this seq waits already. */
  add(scope: string, { seq, prevHash, hash, isIntact }: CheckedLink): boolean {
    const { changes } = this.#add.run(scope, seq, prevHash, hash, isIntact ? 1 : 0);
    if (Number(changes) === 0) return false;
    this.#counts.set(scope, this.count(scope) + 1);
    return true;
  }

  take(scope: string, seq: number): CheckedLink | undefined {
    if (this.count(scope) === 0) return undefined;
    const row = this.#take.get(scope, seq);
    if (row === undefined) return undefined;
    this.#counts.set(scope, this.count(scope) - 1);
    return {
      seq,
      prevHash: String(row["prev_hash"]),
      hash: String(row["hash"]),
      isIntact: row["intact"] === 1,
    };
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
