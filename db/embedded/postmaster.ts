import { readFile, realpath, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { findProcess, isSameProcess, type ProcessIdentity } from "../process-identity.ts";

/** The server process of one data directory. */
export interface Postmaster {
  readonly process: Pick<ProcessIdentity, "pid" | "startedAt">;
  readonly port: number;
}

interface PidFile {
  readonly pid: number;
  readonly port: number;
  readonly status: string;
}

const pollMs = 20;
// A fast shutdown writes a checkpoint, which takes long with many dirty buffers on a slow disk.
const fastShutdownMs = 20_000;
// In an immediate shutdown, the postmaster kills the remaining children after 5 s.
const immediateShutdownMs = 8_000;

/**
 * Finds the postmaster that runs on this data directory, even if it does not accept connections yet. The pid file may
 * be stale, with its pid in use by another program, so the process itself is checked.
 */
export async function findPostmaster(pgdata: string): Promise<ProcessIdentity | undefined> {
  const pidFile = await readPidFile(pgdata);
  const found = pidFile && (await findProcess(pidFile.pid));
  if (!found || !/(^|\/)postgres\b/.test(found.command)) return undefined;
  // The working directory of a postmaster is its data directory, even after a rename. If the system hides working
  // directories, compare the command line.
  const isOurs =
    found.workingDirectory === (await realpath(pgdata)) || found.command.includes(` -D ${pgdata} `);
  return isOurs ? found : undefined;
}

/** Waits until the postmaster accepts connections, after a crash recovery if necessary. undefined: it ended instead. */
export async function waitUntilReady(
  pgdata: string,
  process: Pick<ProcessIdentity, "pid" | "startedAt">,
  { deadlineAt, signal }: { deadlineAt: number; signal?: AbortSignal | undefined },
): Promise<Postmaster | undefined> {
  while (await isSameProcess(process)) {
    signal?.throwIfAborted();
    const pidFile = await readPidFile(pgdata);
    if (pidFile?.pid === process.pid && pidFile.status === "ready") return { process, port: pidFile.port };
    if (Date.now() > deadlineAt) {
      throw new Error(`Postgres (process ${process.pid}) in ${pgdata} did not accept connections in time`);
    }
    await delay(pollMs);
  }
  return undefined;
}

/** Stops the postmaster: by a fast shutdown, then an immediate one (the next start recovers), then SIGKILL. */
export async function stopPostmaster(process: Pick<ProcessIdentity, "pid" | "startedAt">): Promise<void> {
  if (await endWithin(process, "SIGINT", fastShutdownMs)) return;
  if (await endWithin(process, "SIGQUIT", immediateShutdownMs)) return;
  if (await endWithin(process, "SIGKILL", immediateShutdownMs)) return;
  throw new Error(`Postgres (process ${process.pid}) survived SIGKILL`);
}

async function endWithin(
  identity: Pick<ProcessIdentity, "pid" | "startedAt">,
  signal: NodeJS.Signals,
  timeoutMs: number,
): Promise<boolean> {
  if (!(await isSameProcess(identity))) return true;
  sendSignal(identity.pid, signal);
  for (const deadlineAt = Date.now() + timeoutMs; Date.now() < deadlineAt;) {
    if (!(await isSameProcess(identity))) return true;
    await delay(pollMs);
  }
  return false;
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // The process has ended since the check.
    if (error instanceof Error && "code" in error && error.code === "ESRCH") return;
    throw error;
  }
}

/**
 * Lets Postgres start despite a stale pid file whose pid now belongs to another program. Postgres would refuse to.
 *
 * The file must remain: through the shared memory that it names, Postgres detects that children of the dead postmaster
 * still write. So our own pid replaces the stale one: Postgres knows that its parent is no postmaster.
 */
export async function disownStalePidFile(pgdata: string): Promise<void> {
  const path = join(pgdata, "postmaster.pid");
  const text = await readOrUndefined(path);
  const [pid, ...rest] = text?.split("\n") ?? [];
  const isTaken = (await findProcess(Number(pid))) !== undefined;
  if (!isTaken || (await findPostmaster(pgdata)) !== undefined) return;
  const replacement = join(pgdata, "postmaster.pid.disowned");
  await writeFile(replacement, [`${process.pid}`, ...rest].join("\n"), { mode: 0o600 });
  await rename(replacement, path);
}

/** The lines of the file: pid, data directory, start time, port, socket directory, address, shared memory, status. */
async function readPidFile(pgdata: string): Promise<PidFile | undefined> {
  const lines = (await readOrUndefined(join(pgdata, "postmaster.pid")))?.split("\n");
  if (lines === undefined) return undefined;
  return { pid: Number(lines[0]), port: Number(lines[3]), status: lines[7]?.trim() ?? "" };
}

async function readOrUndefined(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}
