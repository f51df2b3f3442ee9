import { setTimeout as sleep } from "node:timers/promises";
import { RuntimeFailure } from "../engine-runtime.ts";
import {
  listEngineGroup,
  readProcessState,
  type EngineProcess,
  type EngineProcessState,
} from "./engine-process.ts";

const POLL_MS = 15;
/** The kernel ends a killed process within milliseconds, unless the process hangs in a system call. */
const KILL_TIMEOUT_MS = 5_000;

/** Signals all processes of the group. Does nothing if there are none. */
export function signalGroup(engineProcess: EngineProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-engineProcess.pid, signal);
  } catch (error) {
    // macOS answers EPERM for a group of zombies.
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ESRCH" && code !== "EPERM") throw error;
  }
}

/** Waits, because a signal takes effect after it was sent. False: the state was not reached in that time. */
export async function waitForState(
  engineProcess: EngineProcess,
  state: EngineProcessState,
  timeoutMs: number,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const present = await readProcessState(engineProcess);
    if (present === state) return true;
    if (present === "gone" || performance.now() >= deadline) return false;
    await sleep(POLL_MS);
  }
}

/** Kills the members of the group that still run. Returns when all have ended. */
export async function killGroup(engineProcess: EngineProcess): Promise<void> {
  const deadline = performance.now() + KILL_TIMEOUT_MS;
  while ((await listEngineGroup(engineProcess)).length > 0) {
    if (performance.now() >= deadline) {
      const message = `the process group ${engineProcess.pid} still runs ${KILL_TIMEOUT_MS} ms after SIGKILL`;
      throw new RuntimeFailure("refused", message);
    }
    signalGroup(engineProcess, "SIGKILL");
    await sleep(POLL_MS);
  }
}
