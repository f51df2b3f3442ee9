import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { promisify } from "node:util";

/** What the system says about one process. */
export interface ProcessRow {
  pid: number;
  groupId: number;
  state: "running" | "stopped" | "zombie";
  /** Linux: ticks between the machine's boot and the start. Exact, and different for whoever gets the pid next. */
  startTicks: string | null;
  /** Elsewhere: the start as the wall clock had it, to the second. */
  startedAtMs: number | null;
  cpuNanoseconds: bigint;
  /** null where it takes another look: `readMemoryBytes`. */
  memoryBytes: number | null;
}

const NANOSECONDS_PER_TICK = 10_000_000n;
const PS_COLUMNS = "pid=,pgid=,stat=,rss=,time=,lstart=";

/** undefined: there is no such process. A zombie is found, and says so. */
export async function findProcess(pid: number): Promise<ProcessRow | undefined> {
  if (process.platform === "linux") return readLinuxProcess(pid);
  return (await runPs(["-p", String(pid)]))[0];
}

/** All members of a process group that are more than zombies. */
export async function listGroup(groupId: number): Promise<ProcessRow[]> {
  const rows = process.platform === "linux" ? await listLinuxProcesses() : await runPs(["-ax"]);
  return rows.filter((row) => row.groupId === groupId && row.state !== "zombie");
}

export async function readMemoryBytes(row: ProcessRow): Promise<number> {
  if (row.memoryBytes !== null) return row.memoryBytes;
  // From `status`, which has kilobytes; `stat` counts pages of a size that Node cannot tell.
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
    // ENOENT, or ESRCH when it ended while it was read: it is gone either way.
    return undefined;
  }
}

/** A line of /proc/<pid>/stat; the name in brackets may hold anything, brackets included. */
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
  // The month's name in lstart depends on the language.
  const { stdout } = await promisify(execFile)("ps", args, { env: { LC_ALL: "C", TZ: "UTC" } }).catch(
    // Exit code 1 is ps for "none of these".
    () => ({ stdout: "" }),
  );
  return stdout
    .split("\n")
    .map(toPsRow)
    .filter((row) => row !== undefined);
}

/** A line of `ps -o pid=,pgid=,stat=,rss=,time=,lstart=`, as BSD and Linux print it. */
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

/** `[[days-]hours:]minutes:seconds`, with fractions on a Mac. */
function toNanoseconds(cpuTime: string): bigint {
  const [time = "", days = "0"] = cpuTime.split("-").reverse();
  const seconds = time.split(":").reduce((total, part) => total * 60 + Number(part), 0);
  return BigInt(Math.round((Number(days) * 86_400 + seconds) * 1000)) * 1_000_000n;
}

function toProcessState(state: string): ProcessRow["state"] {
  if (state.startsWith("Z") || state.startsWith("X")) return "zombie";
  return state.startsWith("T") ? "stopped" : "running";
}
