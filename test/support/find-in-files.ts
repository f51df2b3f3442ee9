import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "../../server/json/json-file.ts";

const BLOCK_BYTES = 4 * 1024 * 1024;

/** The text as it is, in base64 at each of the three offsets, in hex and with percent signs. */
export function toEncodings(text: string): string[] {
  const bytes = Buffer.from(text);
  const base64 = [0, 1, 2].map((offset) => {
    const encoded = Buffer.concat([Buffer.alloc(offset), bytes])
      .toString("base64")
      .replaceAll("=", "");
    // The characters at both ends depend on the bytes around the text.
    return encoded.slice(offset === 0 ? 0 : offset + 1, -1);
  });
  const percent = [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
  return [text, ...base64, bytes.toString("hex"), percent];
}

/**
 * The files of the folders, at any depth, that have one of the texts. Files that vanish meanwhile do not count, and neither
 * do those that were last written before `sinceMs`, when the texts did not exist yet.
 */
export async function findInFiles(
  folders: readonly string[],
  texts: readonly string[],
  sinceMs: number,
): Promise<string[]> {
  const needles = texts.map((text) => Buffer.from(text));
  const overlap = Math.max(...needles.map(({ length }) => length));
  const found: string[] = [];
  const options = { withFileTypes: true, recursive: true } as const;
  const entries = await Promise.all(folders.map(async (folder) => readdir(folder, options)));
  for (const entry of entries.flat()) {
    const path = join(entry.parentPath, entry.name);
    const isCandidate = entry.isFile() && (await wasWrittenSince(path, sinceMs));
    if (isCandidate && (await hasOneOf(path, needles, overlap))) found.push(path);
  }
  return found;
}

async function wasWrittenSince(path: string, sinceMs: number): Promise<boolean> {
  try {
    return (await stat(path)).mtimeMs >= sinceMs;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

async function hasOneOf(path: string, needles: readonly Buffer[], overlap: number): Promise<boolean> {
  try {
    await using file = await open(path, "r");
    const block = Buffer.alloc(BLOCK_BYTES + overlap);
    for (let position = 0; ; position += BLOCK_BYTES) {
      const { bytesRead } = await file.read(block, 0, block.length, position);
      const part = block.subarray(0, bytesRead);
      if (needles.some((needle) => part.includes(needle))) return true;
      if (bytesRead < block.length) return false;
    }
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}
