import { readFile, stat } from "node:fs/promises";
import { isMissing } from "../../json/json-file.ts";
import { findProcess, readProcFile, toLinuxRow, type ProcessRow } from "./process-table.ts";

/** The process of one start of a container, read from the pid file that this process wrote itself. */
export interface EngineProcess {
  /** Also the id of the process group and of the session, because the process leads both. */
  pid: number;
  /** ISO instant at which the pid file was written. It stays the same for as long as the file exists. */
  startedAt: string;
  /** Names the boot of the machine; empty where the system does not name its boots. */
  bootId: string;
  startTicks: string | null;
  /** The random token of the start. Empty: an older version started the engine. */
  token: string;
}

export type EngineProcessState = "running" | "paused" | "gone";

/** On systems whose start times have whole seconds, a process may seem to start this much after its pid file. */
const START_TOLERANCE_MS = 2_000;

/** undefined: the file does not exist, or is not written completely yet. */
export async function readEngineProcess(pidFile: string): Promise<EngineProcess | undefined> {
  try {
    const [pid = "", bootId = "", statLine = "", token] = (await readFile(pidFile, "utf8")).split("\n");
    if (pid === "" || token === undefined) return undefined;
    const { mtime } = await stat(pidFile);
    const startTicks = toLinuxRow(statLine)?.startTicks ?? null;
    return { pid: Number(pid), startedAt: mtime.toISOString(), bootId, startTicks, token };
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Answers `gone` if another process has the pid now. */
export async function readProcessState(engineProcess: EngineProcess): Promise<EngineProcessState> {
  const row = await findProcess(engineProcess.pid);
  if (row === undefined || row.state === "zombie" || !isSameProcess(engineProcess, row)) return "gone";
  return row.state === "stopped" ? "paused" : "running";
}

/**
 * Whether a process group with the process's id can still be ours, by the process that has this pid now. The system gives
 * no new process a pid that names an existing group. So if another process has our leader's pid, our group has ended.
 */
export function mayLeadGroup(engineProcess: EngineProcess, leader: ProcessRow | undefined): boolean {
  return leader === undefined ? isSameBoot(engineProcess) : isSameProcess(engineProcess, leader);
}

/** Whether this row shows the process of this start, and no later process with the same pid. */
function isSameProcess(engineProcess: EngineProcess, row: ProcessRow): boolean {
  if (row.startTicks !== null) {
    return row.startTicks === engineProcess.startTicks && isSameBoot(engineProcess);
  }
  return (row.startedAtMs ?? Infinity) <= Date.parse(engineProcess.startedAt) + START_TOLERANCE_MS;
}

/**
 * False: the process ended with an earlier boot of the machine, and so did everything that it had started. Start ticks
 * count from the boot, so after a reboot another process may have the same ticks by chance.
 */
export function isSameBoot(engineProcess: EngineProcess): boolean {
  if (process.platform !== "linux") return true;
  return readProcFile("/proc/sys/kernel/random/boot_id").trim() === engineProcess.bootId;
}
