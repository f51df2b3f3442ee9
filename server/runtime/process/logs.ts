import { open, stat, truncate, writeFile } from "node:fs/promises";
import { isMissing } from "./atomic-file.ts";
import type { LogLine } from "../engine-runtime.ts";

/** A log file beyond this is cut to its end. */
const MAX_FILE_BYTES = 10 * 1024 * 1024;
/** What is kept of it, and what is looked at to find the last lines. */
const KEPT_BYTES = 1024 * 1024;
const MAX_MARKS = 1_000;

/** How far a file had grown by when. */
interface LogMark {
  size: number;
  at: string;
}

export interface LogFile {
  path: string;
  stream: LogLine["stream"];
}

/**
 * Processes write their files by themselves, without times. So each look at a file remembers its size and when
 * that was written, and a line is as old as the first look that could have seen it.
 */
export class ProcessLogs {
  readonly #marks = new Map<string, LogMark[]>();

  /** Called now and then for each file, which is as exact as times get. */
  async look({ path }: LogFile): Promise<void> {
    try {
      const { size, mtime } = await stat(path);
      this.#mark(path, { size, at: mtime.toISOString() });
      if (size > MAX_FILE_BYTES) await this.#cut(path);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  forget({ path }: LogFile): void {
    this.#marks.delete(path);
  }

  /** The last lines of all these files together, oldest first. */
  async tail(files: readonly LogFile[], count: number): Promise<LogLine[]> {
    if (count <= 0) return [];
    const lines: LogLine[] = [];
    for (const file of files) lines.push(...(await this.#readFile(file, count)));
    return lines.sort((a, b) => a.at.localeCompare(b.at)).slice(-count);
  }

  async #readFile(file: LogFile, count: number): Promise<LogLine[]> {
    await this.look(file);
    const marks = this.#marks.get(file.path) ?? [];
    const current = await readLastLines(file.path);
    const lines = current.map(({ line, end }) => ({ at: toTime(marks, end), stream: file.stream, line }));
    if (lines.length >= count) return lines.slice(-count);
    const at = lines[0]?.at ?? marks[0]?.at ?? new Date(0).toISOString();
    const before = await readLastLines(toPreviousPath(file.path));
    return [...before.map(({ line }) => ({ at, stream: file.stream, line })), ...lines].slice(-count);
  }

  #mark(path: string, mark: LogMark): void {
    const marks = this.#marks.get(path) ?? [];
    const last = marks.at(-1);
    // Smaller than before: it was cut, and what was known about its places is void.
    if (last !== undefined && mark.size < last.size) marks.length = 0;
    if (last === undefined || mark.size !== last.size) marks.push(mark);
    if (marks.length > MAX_MARKS) marks.shift();
    this.#marks.set(path, marks);
  }

  /** The writer appends, so it goes on at the new end. What it writes in between is lost, as with any such cut. */
  async #cut(path: string): Promise<void> {
    const { bytes } = await readEnd(path);
    await writeFile(toPreviousPath(path), bytes, { mode: 0o600 });
    await truncate(path, 0);
    this.#marks.delete(path);
  }
}

function toPreviousPath(path: string): string {
  return `${path}.1`;
}

/** The last bytes of a file and where in it they begin; none when there is no file. */
async function readEnd(path: string): Promise<{ bytes: Buffer; start: number }> {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    const start = Math.max(0, size - KEPT_BYTES);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - start), 0, size - start, start);
    return { bytes: buffer.subarray(0, bytesRead), start };
  } catch (error) {
    if (isMissing(error)) return { bytes: Buffer.alloc(0), start: 0 };
    throw error;
  }
}

/** The lines at the end of a file, each with the place where it ends. A line that begins before them is left out. */
async function readLastLines(path: string): Promise<{ line: string; end: number }[]> {
  const { bytes, start } = await readEnd(path);
  const lines: { line: string; end: number }[] = [];
  let from = start === 0 ? 0 : bytes.indexOf("\n") + 1;
  while (from < bytes.length) {
    const newline = bytes.indexOf("\n", from);
    const to = newline < 0 ? bytes.length : newline;
    lines.push({ line: bytes.toString("utf8", from, to), end: start + to });
    from = to + 1;
  }
  return lines;
}

function toTime(marks: readonly LogMark[], end: number): string {
  const seen = marks.find(({ size }) => size >= end) ?? marks.at(-1);
  return seen?.at ?? new Date(0).toISOString();
}
