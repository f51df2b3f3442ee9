import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export interface Opener extends AsyncDisposable {
  readonly pid: number;
  /** The first line of its output: "serving …" or "refused …". */
  readonly output: string;
  /** Sends SIGKILL, so no handler runs. */
  kill(): Promise<void>;
  /** Makes it stop its database and exit. */
  close(): Promise<void>;
}

const program = fileURLToPath(new URL("./programs/open-embedded.ts", import.meta.url));

/** Starts a process that opens a data directory. Resolves with the first line of its output. */
export async function startOpener(dataDir: string, mode?: "without-lock" | "lock-only"): Promise<Opener> {
  const args = mode === undefined ? [program, dataDir] : [program, dataDir, mode];
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let output = "";
  for await (const line of createInterface(child.stdout)) {
    output = line;
    break;
  }
  const kill = async () => {
    child.kill("SIGKILL");
    await exited;
  };
  const close = async () => {
    child.stdin.destroy();
    await exited;
  };
  return { pid: child.pid ?? 0, output, kill, close, [Symbol.asyncDispose]: close };
}
