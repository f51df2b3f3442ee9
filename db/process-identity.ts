import { execFile } from "node:child_process";
import { readFile, readlink } from "node:fs/promises";
import { platform } from "node:os";
import { promisify } from "node:util";

/** A process as the system shows it now. A pid alone is reused; pid and start time together are not. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startedAt: string;
  readonly command: string;
  /** Undefined where the system does not tell. */
  readonly workingDirectory: string | undefined;
}

/** Undefined when no such process runs. A zombie, which still answers `kill(pid, 0)`, does not run. */
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
  // The second field is the command name in parentheses and may itself hold spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state, startedAt] = [fields[0], fields[19]];
  if (state === undefined || startedAt === undefined || state === "Z" || state === "X") return undefined;
  return { pid, startedAt, command: cmdline.split("\0").join(" ").trim(), workingDirectory };
}

async function findWithPs(pid: number): Promise<ProcessIdentity | undefined> {
  const run = promisify(execFile);
  // ps exits 1 when there is no such process.
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
    // The process ended between two reads, or hides this detail from us: both read as "not known".
    return undefined;
  }
}
