import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";

/** One process, as the system reports it. */
export interface ProcessRow {
  pid: number;
  parentId: number;
  groupId: number;
  /** Linux only; elsewhere null. */
  sessionId: number | null;
  state: "running" | "stopped" | "zombie";
  /** Linux only: clock ticks from the boot to the start. A later process with the same pid has another value. */
  startTicks: string | null;
  /** Other systems: the wall-clock time of the start, in whole seconds. */
  startedAtMs: number | null;
  cpuNanoseconds: bigint;
  /** null: `readMemoryBytes` has to read it. */
  memoryBytes: number | null;
}

const NANOSECONDS_PER_TICK = 10_000_000n;
const PS_COLUMNS = "pid=,ppid=,pgid=,stat=,rss=,time=,lstart=";
/** How many processes are read before other work of this replica gets its turn: less than 1 ms. */
const READS_PER_TURN = 32;

/*
 * Files of /proc are read synchronously: the kernel answers from memory within microseconds, and a read through the
 * thread pool costs ten times as much. So a pass over all processes also holds one descriptor at a time.
 */

/** undefined: the process does not exist. Zombies are found too. */
export async function findProcess(pid: number): Promise<ProcessRow | undefined> {
  if (process.platform === "linux") return readLinuxProcess(pid);
  return (await runPs(["-p", String(pid)]))[0];
}

/** All processes of the machine, without zombies. */
export async function listProcesses(): Promise<ProcessRow[]> {
  const rows = process.platform === "linux" ? await listLinuxProcesses() : await runPs(["-ax"]);
  return rows.filter((row) => row.state !== "zombie");
}

export function readMemoryBytes(row: ProcessRow): number {
  if (row.memoryBytes !== null) return row.memoryBytes;
  // `status` has kilobytes. `stat` counts pages, and Node does not know their size.
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readProcFile(`/proc/${row.pid}/status`));
  return Number(match?.[1] ?? 0) * 1024;
}

async function listLinuxProcesses(): Promise<ProcessRow[]> {
  const pids = readdirSync("/proc").map(Number).filter(Number.isInteger);
  const rows: ProcessRow[] = [];
  for (const [index, pid] of pids.entries()) {
    if (index % READS_PER_TURN === 0) await setImmediate();
    const row = readLinuxProcess(pid);
    if (row !== undefined) rows.push(row);
  }
  return rows;
}

function readLinuxProcess(pid: number): ProcessRow | undefined {
  return toLinuxRow(readProcFile(`/proc/${pid}/stat`));
}

/** Empty if the process ended, or if another user's process keeps the file for itself. */
export function readProcFile(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // ENOENT; ESRCH if the process ended during the read; EACCES.
    return "";
  }
}

/** Parses /proc/<pid>/stat. The process's name, in brackets, may itself contain brackets and spaces. */
export function toLinuxRow(line: string): ProcessRow | undefined {
  const afterName = line.lastIndexOf(")");
  const pid = Number.parseInt(line, 10);
  const [state, parentId, groupId, sessionId, ...rest] = line.slice(afterName + 2).split(" ");
  const [userTicks, systemTicks, startTicks] = [rest[7], rest[8], rest[15]];
  if (afterName < 0 || startTicks === undefined) return undefined;
  return {
    pid,
    parentId: Number(parentId),
    groupId: Number(groupId),
    sessionId: Number(sessionId),
    state: toProcessState(state ?? ""),
    startTicks,
    startedAtMs: null,
    cpuNanoseconds: (BigInt(userTicks ?? 0) + BigInt(systemTicks ?? 0)) * NANOSECONDS_PER_TICK,
    memoryBytes: null,
  };
}

async function runPs(selection: readonly string[]): Promise<ProcessRow[]> {
  const args = [...selection, "-o", PS_COLUMNS];
  // The names of months in `lstart` depend on the language.
  const { stdout } = await promisify(execFile)("ps", args, { env: { LC_ALL: "C", TZ: "UTC" } }).catch(
    // `ps` exits with 1 if it finds no process.
    () => ({ stdout: "" }),
  );
  return stdout
    .split("\n")
    .map(toPsRow)
    .filter((row) => row !== undefined);
}

/** Parses a line of `ps -o pid=,ppid=,pgid=,stat=,rss=,time=,lstart=` of BSD, macOS or Linux. */
export function toPsRow(line: string): ProcessRow | undefined {
  const [pid, parentId, groupId, state, kilobytes, cpuTime, ...started] = line.trim().split(/\s+/);
  if (cpuTime === undefined) return undefined;
  return {
    pid: Number(pid),
    parentId: Number(parentId),
    groupId: Number(groupId),
    sessionId: null,
    state: toProcessState(state ?? ""),
    startTicks: null,
    startedAtMs: Date.parse(`${started.join(" ")} UTC`),
    cpuNanoseconds: toNanoseconds(cpuTime),
    memoryBytes: Number(kilobytes) * 1024,
  };
}

/** Parses `[[days-]hours:]minutes:seconds`; macOS prints fractions of seconds. */
function toNanoseconds(cpuTime: string): bigint {
  const [time = "", days = "0"] = cpuTime.split("-").reverse();
  const seconds = time.split(":").reduce((total, part) => total * 60 + Number(part), 0);
  return BigInt(Math.round((Number(days) * 86_400 + seconds) * 1000)) * 1_000_000n;
}

function toProcessState(state: string): ProcessRow["state"] {
  if (state.startsWith("Z") || state.startsWith("X")) return "zombie";
  return state.startsWith("T") ? "stopped" : "running";
}
