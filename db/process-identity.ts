import { execFile } from "node:child_process";
import { readFile, readlink } from "node:fs/promises";
import { platform } from "node:os";
import { promisify } from "node:util";

/** A running process. The system reuses pids, but never pid and start time together. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startedAt: string;
  readonly command: string;
  /** undefined: the system does not show it. */
  readonly workingDirectory: string | undefined;
}

/** undefined: no such process runs. A zombie does not run, although `kill(pid, 0)` succeeds for it. */
export async function findProcess(pid: number): Promise<ProcessIdentity | undefined> {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  return platform() === "linux" ? findInProc(pid) : findWithPs(pid);
}

export async function isSameProcess(known: Pick<ProcessIdentity, "pid" | "startedAt">): Promise<boolean> {
  const found = await findProcess(known.pid);
  return found !== undefined && found.startedAt === known.startedAt;
}

async function findInProc(pid: number): Promise<ProcessIdentity | undefined> {
  const [stat, cmdline, workingDirectory] = await Promise.all([
    readOrUndefined(readFile(`/proc/${pid}/stat`, "utf8")),
    readOrUndefined(readFile(`/proc/${pid}/cmdline`, "utf8")),
    readOrUndefined(readlink(`/proc/${pid}/cwd`)),
  ]);
  if (stat === undefined || cmdline === undefined) return undefined;
  // The second field is the command name in parentheses. The name may contain spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state, startedAt] = [fields[0], fields[19]];
  if (state === undefined || startedAt === undefined || state === "Z" || state === "X") return undefined;
  return { pid, startedAt, command: cmdline.split("\0").join(" ").trim(), workingDirectory };
}

async function findWithPs(pid: number): Promise<ProcessIdentity | undefined> {
  const run = promisify(execFile);
  // ps exits with 1 if there is no such process.
  const listed = await readOrUndefined(
    run("/bin/ps", ["-ww", "-o", "stat=,lstart=,command=", "-p", `${pid}`], { env: { LC_ALL: "C" } }),
  );
  const match = listed && /^(\S+)\s+(\w+\s+\w+\s+\d+\s+[\d:]+\s+\d+)\s+(.*)$/.exec(listed.stdout.trim());
  if (!match || match[1]?.startsWith("Z")) return undefined;
  return { pid, startedAt: match[2] ?? "", command: match[3] ?? "", workingDirectory: undefined };
}

async function readOrUndefined<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch {
    // The process has ended since the last read, or we may not see this detail.
    return undefined;
  }
}
