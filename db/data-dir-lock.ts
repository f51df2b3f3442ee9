import { readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { makeDirectory } from "./make-directory.ts";
import { findProcess, isSameProcess } from "./process-identity.ts";

export interface DataDirLock extends AsyncDisposable {
  close(): Promise<void>;
}

/** Another process serves this data directory. */
export class DataDirLockedError extends Error {
  override readonly name = "DataDirLockedError";
}

const attempts = 200;
const retryPauseMs = 50;

/**
 * Locks the data directory for this process, until the lock is closed or the process ends.
 *
 * The lock is SQLite's lock on its file, because Node has no file locks. The kernel releases it when the process dies,
 * so a lock is never stale, and no two processes can both hold it. It also works between containers that share a
 * volume, where pids mean nothing. The file beside it only names the holder.
 *
 * @throws {DataDirLockedError} with the holder's pid and the directory.
 */
export async function lockDataDir(dataDir: string): Promise<DataDirLock> {
  const dir = resolve(dataDir);
  await makeDirectory(dir, 0o700);
  for (let attempt = 1; ; attempt += 1) {
    const database = tryLock(dir);
    if (database) return holdLock(dir, database);
    const holder = await findHolder(dir);
    // A holder that has just locked or is just leaving has no name: try again for a while.
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
    // After the release, the file may be the next holder's. So remove it first.
    await rm(holderFile, { force: true });
    if (database.isOpen) database.close();
  };
  return { close, [Symbol.asyncDispose]: close };
}

/** undefined: the file is missing, or names a process that has ended. */
async function findHolder(dir: string): Promise<number | undefined> {
  let text: string;
  try {
    text = await readFile(join(dir, "lock.holder"), "utf8");
  } catch {
    // The file is not written yet, or we may not read it: the error then has no pid.
    return undefined;
  }
  const [pid, startedAt = ""] = text.trim().split(/ (.*)/s);
  const identity = { pid: Number(pid), startedAt };
  return (await isSameProcess(identity)) ? identity.pid : undefined;
}

function toRefusal(dir: string, holder: number | undefined): DataDirLockedError {
  const who = holder ? `process ${holder}` : "a process in another container or on another host";
  return new DataDirLockedError(
    `${who} already serves the data directory ${dir}: stop it, or set ORCH_DATA_DIR to another directory`,
  );
}
