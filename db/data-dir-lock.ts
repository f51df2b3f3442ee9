import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { findProcess, isSameProcess } from "./process-identity.ts";

export interface DataDirLock extends AsyncDisposable {
  close(): Promise<void>;
}

/** Somebody else serves this data directory. */
export class DataDirLockedError extends Error {
  override readonly name = "DataDirLockedError";
}

const attempts = 200;
const retryPauseMs = 50;

/**
 * Takes the data directory for this process alone, until closed or until the process ends in whatever way.
 *
 * The lock is SQLite's on its file, because Node has none of its own and the kernel takes that one back from a
 * killed process: there is nothing stale to recognise, and no two takers can both win. It also holds between
 * containers that share a volume, where pids say nothing. The file beside it only tells who the holder is.
 *
 * @throws {DataDirLockedError} with the holder's pid and the directory.
 */
export async function lockDataDir(dataDir: string): Promise<DataDirLock> {
  const dir = resolve(dataDir);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  for (let attempt = 1; ; attempt += 1) {
    const database = tryLock(dir);
    if (database) return holdLock(dir, database);
    const holder = await findHolder(dir);
    // A holder without a name has just won, or just gone: ask again for a while.
    if (holder !== undefined || attempt === attempts) throw toRefusal(dir, holder);
    await delay(retryPauseMs);
  }
}

function tryLock(dir: string): DatabaseSync | undefined {
  const path = join(dir, "lock.sqlite");
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path, { timeout: 0 });
    database.exec("begin exclusive");
    return database;
  } catch (error) {
    database?.close();
    if (isBusy(error)) return undefined;
    throw new Error(`cannot lock the data directory ${dir} by ${path}`, { cause: error });
  }
}

function isBusy(error: unknown): boolean {
  const sqliteBusy = 5;
  return error instanceof Error && "errcode" in error && error.errcode === sqliteBusy;
}

async function holdLock(dir: string, database: DatabaseSync): Promise<DataDirLock> {
  const holderFile = join(dir, "lock.holder");
  const self = await findProcess(process.pid);
  await writeFile(holderFile, `${process.pid} ${self?.startedAt ?? ""}\n`, { mode: 0o600 });
  const close = async (): Promise<void> => {
    if (!database.isOpen) return;
    // Before the lock is given back: afterwards the file may be the next holder's.
    await rm(holderFile, { force: true });
    if (database.isOpen) database.close();
  };
  return { close, [Symbol.asyncDispose]: close };
}

/** Undefined when the name is missing, or that of an earlier holder that is gone. */
async function findHolder(dir: string): Promise<number | undefined> {
  let text: string;
  try {
    text = await readFile(join(dir, "lock.holder"), "utf8");
  } catch {
    // Not written yet, or not for us to read: the refusal stands without a name.
    return undefined;
  }
  const [pid, startedAt = ""] = text.trim().split(/ (.*)/s);
  const identity = { pid: Number(pid), startedAt };
  return (await isSameProcess(identity)) ? identity.pid : undefined;
}

function toRefusal(dir: string, holder: number | undefined): DataDirLockedError {
  const who = holder === undefined ? "a process that is not visible from here" : `process ${holder}`;
  return new DataDirLockedError(
    `${who} already serves the data directory ${dir}: stop it, or set ORCH_DATA_DIR to another directory`,
  );
}
