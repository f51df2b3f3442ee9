import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { open, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Memory } from "./probe.ts";

export interface ProgramInput {
  /** A TypeScript file of this repository. */
  entry: string;
  env: Readonly<Record<string, string | undefined>>;
  /** Receives the program's stdout and stderr. */
  logFile: string;
  /** Ends the program when it aborts. */
  signal: AbortSignal;
  /** Folder for a CPU profile; undefined: no profile. */
  cpuProfDir?: string | undefined;
}

/** A program in its own process, so that its CPU and memory can be measured alone. */
export interface Program extends AsyncDisposable {
  readonly pid: number;
  /** The URL that it listens on. */
  readonly url: string;
  /** Collects garbage in the program and returns the memory that is still in use. Rejects if the program ends meanwhile. */
  readMemory(): Promise<Memory>;
  /** As `kill -9`. Resolves when the program has ended. */
  kill(): Promise<void>;
}

const PROBE = fileURLToPath(new URL("probe.ts", import.meta.url));
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const POLL_MS = 20;

/** Resolves when the program has logged `{"msg":"listening","url":…}`. Disposing sends SIGTERM, later SIGKILL. */
export async function openProgram(input: ProgramInput): Promise<Program> {
  const log = await open(input.logFile, "a");
  const profile = input.cpuProfDir === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${input.cpuProfDir}`];
  // Its own process group: Ctrl-C must reach only the benchmark, which then stops the program in order.
  const child = spawn(process.execPath, ["--expose-gc", ...profile, "--import", PROBE, input.entry], {
    env: { ...input.env },
    detached: true,
    stdio: ["ignore", log.fd, log.fd, "ipc"],
  });
  await log.close();
  const onAbort = () => child.kill("SIGTERM");
  input.signal.addEventListener("abort", onAbort, { once: true });
  const stop = async () => {
    input.signal.removeEventListener("abort", onAbort);
    await stopChild(child);
  };
  try {
    const url = await untilListening(child, input);
    const { pid } = child;
    if (pid === undefined) throw new Error(`${input.entry} did not start`);
    return {
      pid,
      url,
      readMemory: () => requestMemory(child),
      kill: () => killChild(child),
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function untilListening(child: ChildProcess, input: ProgramInput): Promise<string> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    const text = await readFile(input.logFile, "utf8");
    const url = /"url":"([^"]+)".*"msg":"listening"/.exec(text)?.[1];
    if (url !== undefined) return url;
    if (hasEnded(child) || performance.now() > deadline) {
      throw new Error(`${input.entry} did not listen:\n${text.split("\n").slice(-15).join("\n")}`);
    }
    await sleep(POLL_MS, undefined, { signal: input.signal });
  }
}

async function requestMemory(child: ChildProcess): Promise<Memory> {
  const over = new AbortController();
  const onExit = () => over.abort(new Error("the program has ended"));
  child.once("exit", onExit);
  try {
    if (hasEnded(child)) onExit();
    const answered = once(child, "message", { signal: over.signal });
    // A failed send is followed by the exit.
    child.send("memory", () => undefined);
    const [memory] = (await answered) as [Memory];
    return memory;
  } finally {
    child.off("exit", onExit);
  }
}

async function killChild(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (hasEnded(child) || child.pid === undefined) return;
  const exited = once(child, "exit");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
  child.kill("SIGTERM");
  await exited;
  clearTimeout(timer);
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
