import { readlinkSync, statSync } from "node:fs";
import { sep } from "node:path";
import { setImmediate } from "node:timers/promises";
import { listProcesses, readProcFile, type ProcessRow } from "./process-table.ts";

/** A running process, and what it shows of the container that it comes from. */
export interface ScannedProcess extends ProcessRow {
  /** Linux: the name of the container whose mark the process has. See `findContainerName`. */
  containerName: string | undefined;
}

/** How many processes are examined before other work of this replica gets its turn: less than 2 ms. */
const READS_PER_TURN = 16;

/** Passes over all processes of the machine. Calls that wait at the same time share one pass. */
export class ProcessScan {
  readonly #containersPath: string;
  #running: Promise<unknown> = Promise.resolve();
  #next: Promise<ScannedProcess[]> | undefined;

  /** `containersPath`: the folder that has the folders of all containers. */
  constructor(containersPath: string) {
    this.#containersPath = containersPath + sep;
  }

  /** Every process that ran before this call and runs after it is in the result. */
  async list(): Promise<ScannedProcess[]> {
    this.#next ??= this.#runNext();
    return this.#next;
  }

  async #runNext(): Promise<ScannedProcess[]> {
    await this.#running;
    this.#next = undefined;
    const pass = this.#pass();
    this.#running = pass.catch(() => undefined);
    return pass;
  }

  async #pass(): Promise<ScannedProcess[]> {
    const scanned: ScannedProcess[] = [];
    for (const [index, row] of (await listProcesses()).entries()) {
      if (index % READS_PER_TURN === 0) await setImmediate();
      scanned.push({ ...row, containerName: this.#findContainerName(row) });
    }
    return scanned;
  }

  #findContainerName({ pid }: ProcessRow): string | undefined {
    if (process.platform !== "linux") return undefined;
    return findContainerName(pid, this.#containersPath);
  }
}

/**
 * The container that a process belongs to by its own mark: the engine's TMPDIR in its environment. A process that cleared
 * its environment is known by its outputs, if both are log files of the container that are open for writing.
 *
 * Nothing else is a mark, because a person's programs must survive. A shell may have its working directory in the
 * container's folder, its OLDPWD names the folder later, and `tail` or an editor may read or write a log.
 */
function findContainerName(pid: number, prefix: string): string | undefined {
  return findInEnvironment(readProcFile(`/proc/${pid}/environ`), prefix) ?? findByOutputs(pid, prefix);
}

/** `prefix`: the path of the containers' folders, with a slash at its end. */
export function findInEnvironment(environment: string, prefix: string): string | undefined {
  const marker = `\0TMPDIR=${prefix}`;
  const start = `\0${environment}`.indexOf(marker);
  if (start < 0) return undefined;
  return /^([^/\0]+)\/tmp(?:\0|$)/.exec(`\0${environment}`.slice(start + marker.length))?.[1];
}

function findByOutputs(pid: number, prefix: string): string | undefined {
  const name = findLogOwner(pid, 1, prefix);
  if (name === undefined || findLogOwner(pid, 2, prefix) !== name) return undefined;
  // An engine has our user and no terminal. A person's program mostly has a terminal.
  return isOurs(pid) && !hasTerminal(pid) ? name : undefined;
}

/** The container to whose log the output goes. */
function findLogOwner(pid: number, output: 1 | 2, prefix: string): string | undefined {
  const path = readLink(`/proc/${pid}/fd/${output}`);
  if (!path.startsWith(prefix)) return undefined;
  const name = /^([^/]+)\/(?:stdout|stderr)\.log$/.exec(path.slice(prefix.length))?.[1];
  return name !== undefined && isOpenForWriting(pid, output) ? name : undefined;
}

function isOpenForWriting(pid: number, descriptor: number): boolean {
  const flags = /^flags:\s+([0-7]+)$/m.exec(readProcFile(`/proc/${pid}/fdinfo/${descriptor}`))?.[1] ?? "0";
  // The last two bits are the access mode; 0 means read only.
  return (Number.parseInt(flags, 8) & 3) !== 0;
}

function isOurs(pid: number): boolean {
  try {
    return statSync(`/proc/${pid}`).uid === process.getuid?.();
  } catch {
    // The process has just ended.
    return false;
  }
}

function hasTerminal(pid: number): boolean {
  const line = readProcFile(`/proc/${pid}/stat`);
  return line.slice(line.lastIndexOf(")") + 2).split(" ")[4] !== "0";
}

/** Empty if the process ended, or if the link is another user's. */
function readLink(path: string): string {
  try {
    return readlinkSync(path, "utf8");
  } catch {
    return "";
  }
}
