import { statSync } from "node:fs";
import { open, truncate, writeFile } from "node:fs/promises";
import { isMissing } from "../../json/json-file.ts";
import type { LogLine } from "../engine-runtime.ts";

/** A log file that is larger loses all but its end. */
const MAX_FILE_BYTES = 10 * 1024 * 1024;
/** How much of a file's end is kept when it is cut, and is read to find the last lines. */
const TAIL_BYTES = 1024 * 1024;
const MAX_SAMPLES = 1_000;

/** The size that a file had at an instant. */
interface SizeSample {
  size: number;
  at: string;
}

export interface LogFile {
  path: string;
  stream: LogLine["stream"];
}

/**
 * Engines write their log files themselves, without times. So `sample` records how large a file was and when it was
 * last written. A line gets the time of the first sample that includes it.
 */
export class ProcessLogs {
  readonly #samples = new Map<string, SizeSample[]>();

  /** Records the file's size, and cuts a file that is too large. Lines are dated as exactly as this is called often. */
  async sample({ path }: LogFile): Promise<void> {
    // Synchronously: a call through the thread pool costs eight times as much, and a thousand engines have two files each.
    const file = statSync(path, { throwIfNoEntry: false });
    if (file === undefined) return;
    this.#add(path, { size: file.size, at: file.mtime.toISOString() });
    if (file.size > MAX_FILE_BYTES) await this.#cut(path);
  }

  forget({ path }: LogFile): void {
    this.#samples.delete(path);
  }

  /** The last `count` lines of all these files together, oldest first. */
  async tail(files: readonly LogFile[], count: number): Promise<LogLine[]> {
    if (count <= 0) return [];
    const lines: LogLine[] = [];
    for (const file of files) lines.push(...(await this.#readFile(file, count)));
    return lines.sort((a, b) => a.at.localeCompare(b.at)).slice(-count);
  }

  async #readFile(file: LogFile, count: number): Promise<LogLine[]> {
    await this.sample(file);
    const samples = this.#samples.get(file.path) ?? [];
    const current = await readLastLines(file.path);
    const lines = current.map(({ line, end }) => ({ at: toTime(samples, end), stream: file.stream, line }));
    if (lines.length >= count) return lines.slice(-count);
    const at = lines[0]?.at ?? samples[0]?.at ?? new Date(0).toISOString();
    const before = await readLastLines(toPreviousPath(file.path));
    return [...before.map(({ line }) => ({ at, stream: file.stream, line })), ...lines].slice(-count);
  }

  #add(path: string, sample: SizeSample): void {
    const samples = this.#samples.get(path) ?? [];
    const last = samples.at(-1);
    // A smaller file has been cut, so the earlier sizes say nothing about its present lines.
    if (last !== undefined && sample.size < last.size) samples.length = 0;
    if (last === undefined || sample.size !== last.size) samples.push(sample);
    if (samples.length > MAX_SAMPLES) samples.shift();
    this.#samples.set(path, samples);
  }

  /** Keeps the file's end in a second file. Lines that the engine writes between the copy and the cut are lost. */
  async #cut(path: string): Promise<void> {
    const { bytes } = await readEnd(path);
    await writeFile(toPreviousPath(path), bytes, { mode: 0o600 });
    // The engine has opened the file for appending, so it continues at the new end.
    await truncate(path, 0);
    this.#samples.delete(path);
  }
}

function toPreviousPath(path: string): string {
  return `${path}.1`;
}

/** The last bytes of a file and the offset of the first one. A missing file has no bytes. */
async function readEnd(path: string): Promise<{ bytes: Buffer; start: number }> {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    const start = Math.max(0, size - TAIL_BYTES);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - start), 0, size - start, start);
    return { bytes: buffer.subarray(0, bytesRead), start };
  } catch (error) {
    if (isMissing(error)) return { bytes: Buffer.alloc(0), start: 0 };
    throw error;
  }
}

/** The complete lines within the file's end, each with the offset in the file at which the line ends. */
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

function toTime(samples: readonly SizeSample[], end: number): string {
  const sample = samples.find(({ size }) => size >= end) ?? samples.at(-1);
  return sample?.at ?? new Date(0).toISOString();
}
