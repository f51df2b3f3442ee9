import { readlinkSync } from "node:fs";
import { sep } from "node:path";
import { setImmediate } from "node:timers/promises";
import { listProcesses, readProcFile, type ProcessRow } from "./process-table.ts";

/** A running process, and what it shows of the container that it comes from. */
export interface ScannedProcess extends ProcessRow {
  /**
   * Linux: the names of containers whose folders its environment, its outputs or its working directory names. The
   * environment of every engine has its TMPDIR there.
   */
  containerNames: readonly string[];
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
      scanned.push({ ...row, containerNames: this.#findContainerNames(row) });
    }
    return scanned;
  }

  #findContainerNames({ pid }: ProcessRow): string[] {
    if (process.platform !== "linux" || pid === process.pid) return [];
    const texts = [
      readProcFile(`/proc/${pid}/environ`),
      ...["cwd", "fd/1", "fd/2"].map((link) => readLink(`/proc/${pid}/${link}`)),
    ];
    return texts.flatMap((text) => findContainerNames(text, this.#containersPath));
  }
}

/** The first path segments after each `prefix` in the text. */
export function findContainerNames(text: string, prefix: string): string[] {
  const names = text
    .split(prefix)
    .slice(1)
    .map((rest) => /^[^\s/\0]*/.exec(rest)?.[0] ?? "");
  return [...new Set(names)].filter((name) => name !== "");
}

/** Empty if the process ended, or if the link is another user's. */
function readLink(path: string): string {
  try {
    return readlinkSync(path, "utf8");
  } catch {
    return "";
  }
}
