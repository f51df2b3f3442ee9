import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "../../json/json-file.ts";

/** The unit in which the system counts the blocks of a file. */
const BLOCK_BYTES = 512;

/** What the files of a folder take on the disk. Follows no symbolic link. Files may disappear during the walk. */
export async function readFolderBytes(folder: string): Promise<number> {
  let bytes = 0;
  const waiting = [folder];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const stats = await unlessMissing(lstat(path));
    if (stats === undefined) continue;
    bytes += stats.blocks * BLOCK_BYTES;
    if (!stats.isDirectory()) continue;
    for (const name of (await unlessMissing(readdir(path))) ?? []) waiting.push(join(path, name));
  }
  return bytes;
}

async function unlessMissing<T>(reading: Promise<T>): Promise<T | undefined> {
  return reading.catch((error: unknown) => {
    if (isMissing(error)) return undefined;
    throw error;
  });
}
