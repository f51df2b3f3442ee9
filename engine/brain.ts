import { DatabaseSync, type SQLTagStore } from "node:sqlite";

/** The user's memory: one SQLite file. Statements are tagged templates on `sql`; their values are always bound. */
export interface Brain {
  readonly sql: SQLTagStore;
  /** Commits all of `work`, or nothing when it throws. `work` must not await. */
  transaction<T>(work: () => T): T;
  close(): void;
}

// An engine that is stopping may hold the lock on its brain a little longer.
const LOCK_TIMEOUT_MS = 2_000;

// Text from people is stored as JSON: SQLite's UTF-8 would replace every lone surrogate by the same character.
const VERSION_1 = `
  CREATE TABLE threads (
    task_id TEXT PRIMARY KEY,
    working_memory TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
  ) STRICT;
  CREATE TABLE messages (
    message_id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES threads,
    exchange INTEGER NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    content TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (task_id, exchange, role)
  ) STRICT;
  CREATE TABLE turns (
    turn_id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES threads,
    status TEXT NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'interrupted')),
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    started_at TEXT NOT NULL,
    ended_at TEXT
  ) STRICT;
  CREATE UNIQUE INDEX one_turn_per_task ON turns (task_id) WHERE status = 'running';
  CREATE TABLE events (
    at INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL,
    turn_id TEXT NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL
  ) STRICT;
  CREATE TABLE pending_questions (
    request_id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    turn_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    question TEXT NOT NULL,
    asked_at TEXT NOT NULL
  ) STRICT;
  CREATE TABLE gateway_config (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    config TEXT NOT NULL,
    revision INTEGER NOT NULL,
    updated_at TEXT
  ) STRICT;
  INSERT INTO gateway_config VALUES (1, '{}', 0, NULL);
`;

const VERSION_2 = `
  ALTER TABLE turns ADD COLUMN caller_turn_id TEXT;
  CREATE INDEX turns_of_task ON turns (task_id);
  CREATE INDEX events_of_turn ON events (turn_id, at);
`;

/** What makes each version out of the one before. */
const VERSIONS = [VERSION_1, VERSION_2];

/** Throws when the file is not a brain, has a later version, or is open in another engine. */
export function openBrain(path: string): Brain {
  const db = openDatabase(path);
  return {
    sql: db.createTagStore(),
    transaction: (work) => inTransaction(db, work),
    close: () => db.close(),
  };
}

function openDatabase(path: string): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    const opened = new DatabaseSync(path, { timeout: LOCK_TIMEOUT_MS });
    db = opened;
    // Exclusive locking: a second engine on the same brain fails at its start and cannot corrupt the first one's turns.
    opened.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
    opened.exec("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY");
    inTransaction(opened, () => applySchema(opened));
    return opened;
  } catch (error) {
    db?.close();
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`the brain at ${path} cannot be opened: ${reason}`, { cause: error });
  }
}

function applySchema(db: DatabaseSync): void {
  const version = Number(db.prepare("PRAGMA user_version").get()?.["user_version"]);
  if (version > VERSIONS.length) {
    throw new Error(`it has version ${version}, but this engine supports at most version ${VERSIONS.length}`);
  }
  for (const step of VERSIONS.slice(version)) db.exec(step);
  db.exec(`PRAGMA user_version = ${VERSIONS.length}`);
}

function inTransaction<T>(db: DatabaseSync, work: () => T): T {
  db.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    db.exec("COMMIT");
    return result;
  } catch (error) {
    // A full disk makes SQLite roll back by itself; another ROLLBACK would throw and hide the first error.
    if (db.isTransaction) db.exec("ROLLBACK");
    throw error;
  }
}
