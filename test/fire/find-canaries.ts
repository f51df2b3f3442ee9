import { readdir, readFile } from "node:fs/promises";
import { isMissing } from "../../server/json/json-file.ts";
import { findInFiles, toEncodings } from "../support/find-in-files.ts";
import type { Canaries } from "./leak-site.ts";

/** The names of the secrets that the text has in any encoding. */
export function findInText(canaries: Canaries, text: string): string[] {
  return [...canaries]
    .filter(([, secret]) => toEncodings(secret).some((form) => text.includes(form)))
    .map(([name]) => name);
}

/** The files of the folders that have each secret, as `name: path`. */
export async function findInFolders(canaries: Canaries, folders: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const [name, secret] of canaries) {
    for (const path of await findInFiles(folders, toEncodings(secret), 0)) found.push(`${name}: ${path}`);
  }
  return found;
}

/** The pids of all processes that the caller may see, with their arguments. */
export async function readAllArguments(): Promise<string> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  return (await Promise.all(pids.map(async (pid) => readProc(pid, "cmdline")))).join("\n");
}

/** The environments of the processes that have this text in theirs. */
export async function readEnvironments(marker: string): Promise<{ pid: number; text: string }[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const all = await Promise.all(
    pids.map(async (pid) => ({ pid: Number(pid), text: await readProc(pid, "environ") })),
  );
  return all.filter(({ text }) => text.includes(marker));
}

/** Empty for a process that has ended, and for one of another user. */
async function readProc(pid: string, name: string): Promise<string> {
  try {
    return await readFile(`/proc/${pid}/${name}`, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (isMissing(error) || code === "ESRCH" || code === "EACCES" || code === "EPERM") return "";
    throw error;
  }
}
