import { readdir, readFile } from "node:fs/promises";

/** CPU milliseconds, user and system together. */
export interface CpuReading {
  program: number;
  /** CPU of the postmaster and all its processes, also of those that have ended; 0 without a Postgres. */
  postgres: number;
}

/** The kernel's unit in /proc, the same on every Linux system that runs Node. */
const TICK_MS = 10;

/** The CPU that a program and Postgres have used since their start. Reads /proc, so it needs Linux. */
export async function readCpu(pid: number, postmasterPid: number | undefined): Promise<CpuReading> {
  const program = (await readStat(pid))?.ownMs ?? 0;
  return { program, postgres: postmasterPid === undefined ? 0 : await readTree(postmasterPid) };
}

export function toUsed(from: CpuReading, to: CpuReading): CpuReading {
  return { program: to.program - from.program, postgres: to.postgres - from.postgres };
}

async function readTree(postmasterPid: number): Promise<number> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const stats = await Promise.all(pids.map(readStat));
  let sum = 0;
  for (const stat of stats) {
    if (stat?.pid === postmasterPid) sum += stat.ownMs + stat.endedChildrenMs;
    else if (stat?.parentPid === postmasterPid) sum += stat.ownMs;
  }
  return sum;
}

interface Stat {
  pid: number;
  parentPid: number;
  ownMs: number;
  endedChildrenMs: number;
}

async function readStat(pid: number): Promise<Stat | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // The process name before the last bracket may contain blanks and brackets. After it: state, parent, …; utime is the
  // twelfth field.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  if (fields.length < 15) return undefined;
  const ticks = (index: number) => Number(fields[index]) * TICK_MS;
  return {
    pid,
    parentPid: Number(fields[1]),
    ownMs: ticks(11) + ticks(12),
    endedChildrenMs: ticks(13) + ticks(14),
  };
}
