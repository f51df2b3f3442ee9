import { randomBytes } from "node:crypto";
import { open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Replaces the whole file at once; only its owner may read it. Once this returns, a power cut cannot undo the write.
 * `write-file-atomic` does not promise that: it syncs the file, but not the folder that holds the new name.
 */
export async function writeJsonFile(path: string, value: unknown): Promise<void> {
  const draft = `${path}.${randomBytes(4).toString("hex")}.new`;
  try {
    await writeSynced(draft, JSON.stringify(value));
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
  await using folder = await open(dirname(path), "r");
  await folder.sync();
}

async function writeSynced(path: string, text: string): Promise<void> {
  await using file = await open(path, "wx", 0o600);
  await file.writeFile(text);
  await file.sync();
}

/** undefined: the file does not exist. */
export async function readJsonFile(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Whether a file operation failed because the file or one of its folders does not exist. */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR");
}
