import { readFile, readlink } from "node:fs/promises";
import { findProcess, isSameProcess } from "../../db/process-identity.ts";

/** Boot, pid namespace, pid and start time, which together name one process for ever. null: not known here. */
export async function findOwnProcessIdentity(): Promise<string | null> {
  const scope = await findPidScope();
  const own = await findProcess(process.pid);
  return scope === undefined || own === undefined ? null : `${scope}/${process.pid}/${own.startedAt}`;
}

/** True only if the process ran in our boot and pid namespace. Elsewhere its pid would mean another process. */
export async function isProcessGone(identity: string | null): Promise<boolean> {
  const scope = await findPidScope();
  if (identity === null || scope === undefined || !identity.startsWith(`${scope}/`)) return false;
  const [pid, startedAt = ""] = identity.slice(scope.length + 1).split("/", 2);
  return !(await isSameProcess({ pid: Number(pid), startedAt }));
}

async function findPidScope(): Promise<string | undefined> {
  try {
    const [boot, namespace] = await Promise.all([
      readFile("/proc/sys/kernel/random/boot_id", "utf8"),
      readlink("/proc/self/ns/pid"),
    ]);
    return `${boot.trim()}/${namespace}`;
  } catch {
    // Not Linux: other replicas wait until the lease has expired.
    return undefined;
  }
}
