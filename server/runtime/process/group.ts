import { setTimeout as sleep } from "node:timers/promises";
import { RuntimeFailure } from "../engine-runtime.ts";
import { listRunGroup, readRunState } from "./run.ts";
import type { ProcessRun, RunState } from "./run.ts";

const POLL_MS = 15;
/** How long a killed process may take to go; the kernel needs milliseconds, unless it is stuck in it. */
const KILL_TIMEOUT_MS = 5_000;

/** To all processes of the group; nothing when there are none. */
export function signalGroup(run: ProcessRun, signal: NodeJS.Signals): void {
  try {
    process.kill(-run.pid, signal);
  } catch (error) {
    // EPERM is what a Mac says of a group of zombies.
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ESRCH" && code !== "EPERM") throw error;
  }
}

/** Signals are delivered later than they are sent. False: not within that time. */
export async function waitForState(run: ProcessRun, state: RunState, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const present = await readRunState(run);
    if (present === state) return true;
    if (present === "gone" || performance.now() >= deadline) return false;
    await sleep(POLL_MS);
  }
}

/** Kills what is left of the group, and returns when it is gone. */
export async function killGroup(run: ProcessRun): Promise<void> {
  const deadline = performance.now() + KILL_TIMEOUT_MS;
  while ((await listRunGroup(run)).length > 0) {
    if (performance.now() >= deadline) {
      throw new RuntimeFailure("refused", `the processes of group ${run.pid} do not end when killed`);
    }
    signalGroup(run, "SIGKILL");
    await sleep(POLL_MS);
  }
}
