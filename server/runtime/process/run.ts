import { readFile, stat } from "node:fs/promises";
import { isMissing } from "./atomic-file.ts";
import { findProcess, listGroup, toLinuxRow } from "./table.ts";
import type { ProcessRow } from "./table.ts";

/** One process that was started for a container, told by the pid file which that process wrote itself. */
export interface ProcessRun {
  /** Of the process, and of its group and session, all of which it leads. */
  pid: number;
  /** ISO instant at which the pid file was written; stable for as long as the file is. */
  startedAt: string;
  bootId: string;
  startTicks: string | null;
}

export type RunState = "running" | "paused" | "gone";

/** How much later than its pid file a process may seem to have started, where clocks have only seconds. */
const START_TOLERANCE_MS = 2_000;

/** undefined: never started, or the file is not whole yet. */
export async function readRun(pidFile: string): Promise<ProcessRun | undefined> {
  try {
    const [pid = "", bootId = "", statLine = "", end] = (await readFile(pidFile, "utf8")).split("\n");
    if (pid === "" || end === undefined) return undefined;
    const { mtime } = await stat(pidFile);
    const startTicks = toLinuxRow(statLine)?.startTicks ?? null;
    return { pid: Number(pid), startedAt: mtime.toISOString(), bootId, startTicks };
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** What that very process does now. One that only has its pid is somebody else: `gone`. */
export async function readRunState(run: ProcessRun): Promise<RunState> {
  const row = await findProcess(run.pid);
  if (row === undefined || row.state === "zombie" || !(await isSameProcess(run, row))) return "gone";
  return row.state === "stopped" ? "paused" : "running";
}

/**
 * What still lives in the group of that process. The system keeps a pid out of use while a group has it as
 * its name, so a stranger with our leader's pid says that the group is no longer ours.
 */
export async function listRunGroup(run: ProcessRun): Promise<ProcessRow[]> {
  if (!(await isSameBoot(run))) return [];
  const leader = await findProcess(run.pid);
  if (leader !== undefined && !(await isSameProcess(run, leader))) return [];
  return listGroup(run.pid);
}

async function isSameProcess(run: ProcessRun, row: ProcessRow): Promise<boolean> {
  if (row.startTicks !== null) return row.startTicks === run.startTicks && (await isSameBoot(run));
  return (row.startedAtMs ?? Infinity) <= Date.parse(run.startedAt) + START_TOLERANCE_MS;
}

/** Ticks count from the boot, so after another one they may be equal by chance. */
async function isSameBoot(run: ProcessRun): Promise<boolean> {
  if (process.platform !== "linux") return true;
  const bootId = await readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "");
  return bootId.trim() === run.bootId;
}
