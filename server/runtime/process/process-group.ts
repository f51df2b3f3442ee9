import { setTimeout as sleep } from "node:timers/promises";
import { readProcessState, type EngineProcess, type EngineProcessState } from "./engine-process.ts";

const MIN_POLL_MS = 10;
/** Long waits are for the grace of a stop. There may be a thousand of them. */
const MAX_POLL_MS = 250;

/** Signals all processes of the group. Does nothing if there are none. */
export function signalGroup({ pid }: EngineProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // macOS answers EPERM for a group of zombies.
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ESRCH" && code !== "EPERM") throw error;
  }
}

export function killOne(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // The process has just ended.
  }
}

/** Waits, because a signal takes effect after it was sent. False: the state was not reached in that time. */
export async function waitForState(
  engineProcess: EngineProcess,
  state: EngineProcessState,
  timeoutMs: number,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (let pollMs = MIN_POLL_MS; ; pollMs = Math.min(pollMs * 1.2, MAX_POLL_MS)) {
    const present = await readProcessState(engineProcess);
    const leftMs = deadline - performance.now();
    if (present === state) return true;
    if (present === "gone" || leftMs <= 0) return false;
    await sleep(Math.min(pollMs, leftMs));
  }
}
