import { mkdir, writeFile } from "node:fs/promises";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import type { Measure } from "./measure.ts";

const RESULTS_DIR = join(import.meta.dirname, "results");

export interface Machine {
  cpus: number;
  cpuModel: string;
  memoryGb: number;
  node: string;
}

export function describeMachine(): Machine {
  return {
    cpus: cpus().length,
    cpuModel: cpus()[0]?.model ?? "unknown",
    memoryGb: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  };
}

/** Writes the results of this run to a new file and returns its path. */
export async function writeResults(measures: readonly Measure[]): Promise<string> {
  const at = new Date().toISOString();
  await mkdir(RESULTS_DIR, { recursive: true });
  const path = join(RESULTS_DIR, `${at.replaceAll(":", "-")}.json`);
  await writeFile(path, `${JSON.stringify({ at, machine: describeMachine(), measures }, null, 2)}\n`);
  return path;
}
