import { execFile } from "node:child_process";
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

export interface FoundProcess {
  pid: number;
  command: string;
}

/** The processes with the directory in their command line, environment or working directory. */
export async function listProcessesOf(dir: string): Promise<FoundProcess[]> {
  const found = process.platform === "linux" ? await listLinux(dir) : await listByPs(dir);
  return found.filter(({ pid }) => pid !== process.pid);
}

async function listLinux(dir: string): Promise<FoundProcess[]> {
  const names = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(names.map((name) => readLinux(Number(name), dir)));
  return found.filter((each) => each !== undefined);
}

async function readLinux(pid: number, dir: string): Promise<FoundProcess | undefined> {
  const folder = join("/proc", String(pid));
  // A process of another user hides its environment, and any process may end during the read.
  const read = (file: string) => readFile(join(folder, file), "utf8").catch(() => "");
  const command = await read("cmdline");
  const workingDir = await readlink(join(folder, "cwd")).catch(() => "");
  const isOurs = [command, workingDir, await read("environ")].some((text) => text.includes(dir));
  return isOurs ? { pid, command: command.replaceAll("\0", " ").trim() } : undefined;
}

async function listByPs(dir: string): Promise<FoundProcess[]> {
  const { stdout } = await promisify(execFile)("ps", ["-axww", "-o", "pid=,command="]);
  return stdout
    .split("\n")
    .filter((line) => line.includes(dir))
    .map((line) => {
      const [pid = "", ...command] = line.trim().split(" ");
      return { pid: Number(pid), command: command.join(" ") };
    });
}
