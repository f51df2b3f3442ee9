import { readdir, readFile } from "node:fs/promises";

/** CPU milliseconds, user and system together. */
export interface CpuReading {
  program: number;
  /** Of the postmaster and all of its processes, those that have ended included; 0 where there is none. */
  postgres: number;
}

/** The kernel's unit in /proc, which is the same on every Linux that Node runs on. */
const TICK_MS = 10;

/** What two processes have used since they began, as /proc tells: Linux only. */
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
  // The name before it may hold blanks and brackets. After it: state, parent, …, utime is the twelfth.
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
