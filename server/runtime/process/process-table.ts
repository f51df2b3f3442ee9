import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { promisify } from "node:util";

/** One process, as the system reports it. */
export interface ProcessRow {
  pid: number;
  groupId: number;
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
const PS_COLUMNS = "pid=,pgid=,stat=,rss=,time=,lstart=";

/** undefined: the process does not exist. Zombies are found too. */
export async function findProcess(pid: number): Promise<ProcessRow | undefined> {
  if (process.platform === "linux") return readLinuxProcess(pid);
  return (await runPs(["-p", String(pid)]))[0];
}

/** The members of a process group, without zombies. */
export async function listGroup(groupId: number): Promise<ProcessRow[]> {
  const rows = process.platform === "linux" ? await listLinuxProcesses() : await runPs(["-ax"]);
  return rows.filter((row) => row.groupId === groupId && row.state !== "zombie");
}

export async function readMemoryBytes(row: ProcessRow): Promise<number> {
  if (row.memoryBytes !== null) return row.memoryBytes;
  // `status` has kilobytes. `stat` counts pages, and Node does not know their size.
  const status = await readFile(`/proc/${row.pid}/status`, "utf8").catch(() => "");
  const match = /^VmRSS:\s+(\d+) kB/m.exec(status);
  return Number(match?.[1] ?? 0) * 1024;
}

async function listLinuxProcesses(): Promise<ProcessRow[]> {
  const names = await readdir("/proc");
  const pids = names.map(Number).filter((pid) => Number.isInteger(pid));
  const rows = await Promise.all(pids.map(readLinuxProcess));
  return rows.filter((row) => row !== undefined);
}

async function readLinuxProcess(pid: number): Promise<ProcessRow | undefined> {
  try {
    return toLinuxRow(await readFile(`/proc/${pid}/stat`, "utf8"));
  } catch {
    // ENOENT, or ESRCH if the process ended during the read: the process is gone.
    return undefined;
  }
}

/** Parses /proc/<pid>/stat. The process's name, in brackets, may itself contain brackets and spaces. */
export function toLinuxRow(line: string): ProcessRow | undefined {
  const afterName = line.lastIndexOf(")");
  const pid = Number.parseInt(line, 10);
  const [state, , groupId, ...rest] = line.slice(afterName + 2).split(" ");
  const [userTicks, systemTicks, startTicks] = [rest[8], rest[9], rest[16]];
  if (afterName < 0 || startTicks === undefined) return undefined;
  return {
    pid,
    groupId: Number(groupId),
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

/** Parses a line of `ps -o pid=,pgid=,stat=,rss=,time=,lstart=` of BSD, macOS or Linux. */
export function toPsRow(line: string): ProcessRow | undefined {
  const [pid, groupId, state, kilobytes, cpuTime, ...started] = line.trim().split(/\s+/);
  if (cpuTime === undefined) return undefined;
  return {
    pid: Number(pid),
    groupId: Number(groupId),
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
