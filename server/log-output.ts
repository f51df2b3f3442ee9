import { constants, fstatSync, openSync, writeSync } from "node:fs";

/** Lines that were dropped, because the output could not take them in time. */
export interface DroppedLines {
  /** How many lines. */
  dropped: number;
  /** When the output first failed, in ISO 8601. */
  since: string;
  /** The code of the last error of the output, for instance ENOSPC. EAGAIN: its reader reads too slowly. */
  error: string;
}

/** Writes part of the bytes and returns how many. Throws an error with a `code`. Must not block. */
type WriteBytes = (bytes: Uint8Array) => number;

const GATHER_MS = 5;
const GATHER_MAX_LENGTH = 64 * 1024;
/** Lines that an output has not taken yet. Longer ones are dropped. */
const BACKLOG_MAX_LENGTH = 1024 * 1024;
/** The pause before the next attempt. It doubles while the output takes nothing. */
const MIN_RETRY_MS = 5;
const MAX_RETRY_MS = 500;
/** A busy output for which the process waits before it exits. */
const EXIT_WAIT_MS = 500;
const EXIT_PAUSE_MS = 10;

/**
 * Gathers the lines of a few milliseconds into one write, because a write per line costs a system call per request.
 *
 * Never blocks and never throws: a full disk, a broken pipe or a reader that stops reading must not stop the service.
 * Until such an output works again, a bounded backlog is kept. Once the backlog is full, further lines are dropped and
 * counted, until the whole backlog is written.
 */
export class LogOutput {
  readonly #writeBytes: WriteBytes;
  readonly #listeners: ((dropped: DroppedLines) => void)[] = [];
  /** Complete lines, after `#rest`. */
  #lines = "";
  /** Bytes of an unfinished write. */
  #rest: Uint8Array = new Uint8Array();
  #timer: NodeJS.Timeout | undefined;
  #failure: { since: string; error: string } | undefined;
  #retryMs = MIN_RETRY_MS;
  #dropped = 0;
  #droppedEver = 0;

  constructor(writeBytes: WriteBytes) {
    this.#writeBytes = writeBytes;
  }

  /** Lines dropped since the process began. */
  get droppedLines(): number {
    return this.#droppedEver;
  }

  /** The code of the error because of which lines wait or are dropped now. undefined: the output works. */
  get error(): string | undefined {
    return this.#failure?.error;
  }

  /** Calls the listener whenever the output works again after it has dropped lines. The listener may write. */
  onRecovered(listener: (dropped: DroppedLines) => void): void {
    this.#listeners.push(listener);
  }

  /** `urgent`: writes at once. Otherwise within a few milliseconds. */
  write(line: string, urgent = false): void {
    if (this.#isFull(line)) {
      this.#dropped += 1;
      this.#droppedEver += 1;
      return;
    }
    this.#lines += line;
    // A failed output has a timer for its next attempt.
    if (this.#failure === undefined && (urgent || this.#lines.length > GATHER_MAX_LENGTH)) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS).unref();
  }

  /** Writes what waits, when the process exits. Waits for a short time if the output is busy. */
  end(): void {
    const deadlineAt = performance.now() + EXIT_WAIT_MS;
    const pause = new Int32Array(new SharedArrayBuffer(4));
    this.#flush();
    while (this.#failure?.error === "EAGAIN" && performance.now() < deadlineAt) {
      Atomics.wait(pause, 0, 0, EXIT_PAUSE_MS);
      this.#flush();
    }
    clearTimeout(this.#timer);
  }

  #isFull(line: string): boolean {
    if (this.#failure === undefined) return false;
    // After the first dropped line, the later ones are dropped too: the line with their count stands in their place.
    return this.#dropped > 0 || this.#rest.length + this.#lines.length + line.length > BACKLOG_MAX_LENGTH;
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const error = this.#writeAll();
    if (error === undefined) {
      this.#recover();
      return;
    }
    this.#failure = { since: new Date().toISOString(), ...this.#failure, error };
    this.#retryMs = Math.min(MAX_RETRY_MS, this.#retryMs * 2);
    this.#timer = setTimeout(() => this.#flush(), this.#retryMs).unref();
  }

  /** Returns the code of the error that left a rest. undefined: everything is written. */
  #writeAll(): string | undefined {
    try {
      while (this.#rest.length > 0 || this.#lines !== "") {
        if (this.#rest.length === 0) {
          this.#rest = Buffer.from(this.#lines);
          this.#lines = "";
        }
        this.#rest = this.#rest.subarray(this.#writeBytes(this.#rest));
        this.#retryMs = MIN_RETRY_MS;
      }
      return undefined;
    } catch (error) {
      return error instanceof Error && "code" in error ? String(error.code) : String(error);
    }
  }

  #recover(): void {
    const failure = this.#failure;
    const dropped = this.#dropped;
    this.#failure = undefined;
    this.#dropped = 0;
    if (failure === undefined || dropped === 0) return;
    for (const listener of this.#listeners) listener({ dropped, ...failure });
  }
}

/** Lines on the standard output. What waits is written when the process exits. Only SIGKILL loses those lines. */
export function openStdoutLines(): LogOutput {
  const target = toNonBlocking(1);
  const output = new LogOutput((bytes) => writeSync(target, bytes));
  process.on("exit", () => output.end());
  return output;
}

/** Writes a last line to standard error, for a process whose log failed. Writes only what standard error takes at once. */
export function writeToStderr(line: string): void {
  try {
    writeSync(toNonBlocking(2), line);
  } catch {
    // Standard error does not take the line either.
  }
}

/**
 * A full pipe or a stopped terminal blocks the program that writes to it. The mode belongs to the open file, which other
 * programs may share, so this opens the pipe or the terminal once more.
 */
function toNonBlocking(fd: number): number {
  const stats = fstatSync(fd);
  if (stats.isFile()) return fd;
  try {
    const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
    return openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    // A socket, a pipe without a reader, or a system without /proc. Node makes the file of its stream non-blocking.
    const stream = fd === 1 ? process.stdout : process.stderr;
    stream.on("error", () => {
      // Nothing is written through this stream.
    });
    return fd;
  }
}
