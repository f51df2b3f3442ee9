import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export interface Opener extends AsyncDisposable {
  readonly pid: number;
  /** Its first line: "serving …" or "refused …". */
  readonly said: string;
  /** As after a crash: no handler runs. */
  kill(): Promise<void>;
  /** Ends it properly, the database with it. */
  close(): Promise<void>;
}

const program = fileURLToPath(new URL("./programs/open-embedded.ts", import.meta.url));

/** A process of its own that opens a data directory; resolves when it has said how that went. */
export async function startOpener(dataDir: string, mode?: "without-lock" | "lock-only"): Promise<Opener> {
  const args = mode === undefined ? [program, dataDir] : [program, dataDir, mode];
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let said = "";
  for await (const line of createInterface(child.stdout)) {
    said = line;
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
  return { pid: child.pid ?? 0, said, kill, close, [Symbol.asyncDispose]: close };
}
