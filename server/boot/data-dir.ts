import { rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { makeDirectory } from "../../db/make-directory.ts";
import { toErrorMessage } from "../errors.ts";

/** The directory that ORCH_DATA_DIR names. */
export interface DataDir {
  /** Without it no call works, because the database is in it. */
  readonly holdsDatabase: boolean;
  /** @throws with the path, if nothing can be written in it now. */
  check(): Promise<void>;
}

const PROBE_BYTES = 4_096;
const REMEDY = "set ORCH_DATA_DIR to a directory that this user may write, on a disk with free space";

/** Makes the directory. @throws with the path and the reason, if it cannot be made or written. */
export async function openDataDir(
  dataDir: string,
  { holdsDatabase }: Pick<DataDir, "holdsDatabase">,
): Promise<DataDir> {
  const path = resolve(dataDir);
  try {
    await makeDirectory(path, 0o700);
  } catch (error) {
    throw new Error(`the data directory ${path} cannot be made (${toErrorMessage(error)}): ${REMEDY}`, {
      cause: error,
    });
  }
  const check = async () => probe(path);
  await check();
  return { holdsDatabase, check };
}

/** Writes and removes a small file, which finds a full disk, a spent quota and a file system that became read-only. */
async function probe(path: string): Promise<void> {
  const file = join(path, `.write-probe-${process.pid}`);
  try {
    await writeFile(file, Buffer.alloc(PROBE_BYTES));
  } catch (error) {
    throw new Error(`the data directory ${path} cannot be written (${toErrorMessage(error)}): ${REMEDY}`, {
      cause: error,
    });
  } finally {
    await rm(file, { force: true }).catch(() => {
      // The failed write has told the reason.
    });
  }
}
