import { constants, accessSync } from "node:fs";
import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isMissing } from "../../json/json-file.ts";
import { killOne } from "./process-group.ts";
import { readProcFile } from "./process-table.ts";

const POLL_MS = 15;

/**
 * The cgroup of this process, if it may make cgroups there: as root, or in a part of the tree that systemd gave to its
 * user. undefined: this system has no cgroups of version 2, or they are not ours to change.
 */
export function findOwnCgroup(): string | undefined {
  const own = /^0::(.*)$/m.exec(readProcFile("/proc/self/cgroup"))?.[1];
  const mount = /^\S+ \S+ \S+ (\S+) (\S+) .*- cgroup2 /m.exec(readProcFile("/proc/self/mountinfo"));
  if (own === undefined || mount === null) return undefined;
  const [, root = "/", mountPoint = ""] = mount;
  // In a container, the mount may begin below the root of the tree.
  const isBelow = root !== "/" && (own === root || own.startsWith(`${root}/`));
  const folder = join(mountPoint, isBelow ? own.slice(root.length) : own);
  try {
    accessSync(join(folder, "cgroup.procs"), constants.R_OK);
    accessSync(folder, constants.W_OK);
    return folder;
  } catch {
    return undefined;
  }
}

/**
 * The cgroup of one start. undefined: starts have none, or the token is not one of ours. Engines may write in the folder
 * that holds the token, and a path that an engine chose might be the cgroup of this service.
 */
export function toCgroupPath(
  parent: string | undefined,
  containerId: string,
  token: string,
): string | undefined {
  if (parent === undefined || !/^[0-9a-f]{16}$/.test(token)) return undefined;
  return join(parent, `enginehouse-${containerId}-${token}`);
}

/** undefined: the system refuses. Then the engine runs without a cgroup of its own. */
export async function createCgroup(cgroup: string): Promise<string | undefined> {
  return mkdir(cgroup).then(
    () => cgroup,
    () => undefined,
  );
}

/** Kills all processes of the cgroup and removes it. False: some still run after `timeoutMs`. */
export async function endCgroup(cgroup: string, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (await isPopulated(cgroup)) {
    if (performance.now() >= deadline) return false;
    await killAll(cgroup);
    await sleep(POLL_MS);
  }
  // An engine may have made cgroups below its own. Those are left.
  await rmdir(cgroup).catch(() => undefined);
  return true;
}

async function isPopulated(cgroup: string): Promise<boolean> {
  return /^populated 1$/m.test(await readOrEmpty(join(cgroup, "cgroup.events")));
}

async function killAll(cgroup: string): Promise<void> {
  try {
    await writeFile(join(cgroup, "cgroup.kill"), "1", { flag: "r+" });
  } catch (error) {
    if (!isGone(error)) throw error;
    // Linux before 5.14 has no such file. Or another call has just removed the cgroup, and no process is left.
    const pids = (await readOrEmpty(join(cgroup, "cgroup.procs"))).split("\n").filter((pid) => pid !== "");
    for (const pid of pids) killOne(Number(pid));
  }
}

async function readOrEmpty(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isGone(error)) return "";
    throw error;
  }
}

/** A file that was opened before the removal of its cgroup answers ENODEV afterwards. */
function isGone(error: unknown): boolean {
  return isMissing(error) || (error instanceof Error && "code" in error && error.code === "ENODEV");
}
