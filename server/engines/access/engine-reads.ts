import type { EngineRow, EngineUser } from "../../../db/engines.ts";
import { SharedStatements } from "../../shared-statements.ts";

/** Reads the engines of several users in one statement: one result for each user, in the same order. */
type ReadEngines<Row> = (users: readonly EngineUser[]) => Promise<readonly (Row | undefined)[]>;

/** All reads of the process share their statements. */
const SCOPE = "all";

/** Reads the engines of users. Reads that arrive together share a statement. */
export class EngineReads<Row = EngineRow> {
  readonly #reads: SharedStatements<EngineUser, Row | undefined>;

  constructor(read: ReadEngines<Row>) {
    this.#reads = new SharedStatements(async (_scope, users) => read(users));
  }

  /** undefined: the user has no engine. */
  async find(user: EngineUser): Promise<Row | undefined> {
    return this.#reads.add(SCOPE, user);
  }
}
