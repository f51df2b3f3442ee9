import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { getHeapStatistics } from "node:v8";

/** What this process may use at most. */
export interface ProcessLimits {
  /** File descriptors. undefined: unlimited, or this system does not say. */
  openFiles: number | undefined;
  memoryBytes: number;
}

export function findProcessLimits(): ProcessLimits {
  return { openFiles: findOpenFiles(), memoryBytes: findMemoryBytes() };
}

/** Only Linux has this file. The first number is the limit that holds: Node raises it to the second one at its start. */
function findOpenFiles(): number | undefined {
  let text: string;
  try {
    text = readFileSync("/proc/self/limits", "utf8");
  } catch {
    return undefined;
  }
  const limit = /^Max open files +(\d+)/m.exec(text)?.[1];
  return limit === undefined ? undefined : Number(limit);
}

/** The smallest of the limits of the cgroup, the machine and the heap. */
function findMemoryBytes(): number {
  const constrained = process.constrainedMemory();
  const limits = [totalmem(), getHeapStatistics().heap_size_limit];
  // 0 without a limit, and a huge number on some systems.
  if (constrained > 0) limits.push(constrained);
  return Math.min(...limits);
}

const MAX_CONNECTIONS = 10_000;
const MIN_CONNECTIONS = 16;
/** The database, the log, the data directory, and what libraries open. */
const OWN_FILES = 64;
/** `openDatabase` opens so many connections beyond its pool. It opens all a second time while it replaces them. */
const DATABASE_EXTRA = 4;
const DATABASE_TIMES = 2;

/**
 * How many connections of callers to serve. A call may need a second descriptor for its engine, so callers get half of
 * what the service itself does not need.
 */
export function toMaxConnections(openFiles: number | undefined, databasePool: number): number {
  if (openFiles === undefined) return MAX_CONNECTIONS;
  const ownFiles = OWN_FILES + DATABASE_TIMES * (databasePool + DATABASE_EXTRA);
  const half = Math.floor((openFiles - ownFiles) / 2);
  return Math.min(MAX_CONNECTIONS, Math.max(MIN_CONNECTIONS, half));
}

const MEMORY_SHARE = 1 / 16;
const MIN_BODY_BYTES = 32 * 1024 * 1024;
const MAX_BODY_BYTES = 256 * 1024 * 1024;

/** How many bytes of request bodies to hold at once. A body is held up to five times while it is worked on. */
export function toMaxBodyBytes(memoryBytes: number): number {
  return Math.min(MAX_BODY_BYTES, Math.max(MIN_BODY_BYTES, Math.floor(memoryBytes * MEMORY_SHARE)));
}
