import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { access, constants as fileConstants, open } from "node:fs/promises";
import { constants } from "node:os";
import { delimiter, isAbsolute, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { RuntimeFailure } from "../engine-runtime.ts";
import { readRun } from "./run.ts";
import type { ProcessRun } from "./run.ts";

export interface SpawnInput {
  command: readonly string[];
  environment: Readonly<Record<string, string>>;
  pidFile: string;
  /** Holds the token of the latest start. */
  tokenFile: string;
  token: string;
  stdoutFile: string;
  stderrFile: string;
}

export interface SpawnedProcess {
  /** undefined when it ended before it could write its pid file. */
  run: ProcessRun | undefined;
  /** Resolves with the exit code; as shells and Docker count, 128 and the signal's number when it was killed. */
  exited: Promise<number>;
}

/** The shell that writes it is there at once, or something is wrong with the disk. */
const PID_FILE_TIMEOUT_MS = 10_000;

/**
 * The child writes who it is before it becomes the engine, so that no crash of ours can lose it: first under the name
 * of its token, as one that may not be wanted any more. Then it looks whether it is: a later start wrote another token
 * before it looked for such files, so the child sees that token, or the later start sees the child and ends it. Only
 * who has seen its own token takes the pid file, which may be another's by now. Shells add variables of their own to
 * the environment, which `env` takes out again.
 */
const SCRIPT = `
stat= boot=
[ -r "/proc/$$/stat" ] && read -r stat < "/proc/$$/stat"
[ -r /proc/sys/kernel/random/boot_id ] && read -r boot < /proc/sys/kernel/random/boot_id
printf '%s\\n%s\\n%s\\n' "$$" "$boot" "$stat" > "$1.$3" || exit 125
if ! read -r token < "$2" || [ "$token" != "$3" ]; then rm -f "$1.$3"; exit 125; fi
mv "$1.$3" "$1" || exit 125
shift 3
exec /usr/bin/env -u PWD -u OLDPWD -u SHLVL -u _ "$@"
`;

/** In a session of its own, writing to files by itself: whoever started it may die. */
export async function spawnProcess(input: SpawnInput): Promise<SpawnedProcess> {
  await assertCommand(input.command, input.environment["PATH"] ?? "");
  const stdout = await open(input.stdoutFile, "a", 0o600);
  const stderr = await open(input.stderrFile, "a", 0o600);
  try {
    const args = ["-c", SCRIPT, "engine", input.pidFile, input.tokenFile, input.token, ...input.command];
    const child = spawn("/bin/sh", args, {
      detached: true,
      env: { ...input.environment },
      stdio: ["ignore", stdout.fd, stderr.fd],
    });
    const exited = new Promise<number>((resolve) => {
      child.once("exit", (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
    });
    await once(child, "spawn");
    // An engine outlives whoever started it, and must not keep that one alive.
    child.unref();
    return { run: await waitForPidFile(child, input.pidFile), exited };
  } catch (error) {
    throw new RuntimeFailure("refused", `the engine's command does not start: ${input.command[0]}`, error);
  } finally {
    await stdout.close();
    await stderr.close();
  }
}

async function waitForPidFile(child: ChildProcess, pidFile: string): Promise<ProcessRun | undefined> {
  const deadline = performance.now() + PID_FILE_TIMEOUT_MS;
  for (;;) {
    const hasExited = child.exitCode !== null || child.signalCode !== null;
    const run = await readRun(pidFile);
    if (run !== undefined || hasExited) return run;
    if (performance.now() >= deadline) child.kill("SIGKILL");
    await sleep(2);
  }
}

/** Said before the start, since the shell could only say it in the engine's log. */
async function assertCommand(command: readonly string[], path: string): Promise<void> {
  const [name] = command;
  if (name === undefined || name === "") {
    throw new RuntimeFailure("refused", "there is no command to start an engine with");
  }
  const candidates = name.includes("/")
    ? [isAbsolute(name) ? name : resolve(name)]
    : path.split(delimiter).map((folder) => join(folder, name));
  for (const candidate of candidates) {
    if (await isExecutable(candidate)) return;
  }
  throw new RuntimeFailure("refused", `the engine's command is not found: ${name}`);
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, fileConstants.X_OK).then(
    () => true,
    () => false,
  );
}
