import { access, constants as fileConstants, open } from "node:fs/promises";
import { delimiter, isAbsolute, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { RuntimeFailure } from "../engine-runtime.ts";
import { readEngineProcess, type EngineProcess } from "./engine-process.ts";
import type { Child, Spawner } from "./spawner.ts";

export interface SpawnInput {
  command: readonly string[];
  environment: Readonly<Record<string, string>>;
  pidFile: string;
  /** Holds the token of the container's latest start. */
  tokenFile: string;
  /** The token of this start. */
  token: string;
  /** The cgroup that the engine joins; empty: none. */
  cgroup: string;
  stdoutFile: string;
  stderrFile: string;
}

export interface SpawnedProcess {
  /** undefined: the child ended before it took the pid file. */
  engineProcess: EngineProcess | undefined;
  exited: Child["exited"];
}

/** The shell writes the pid file within milliseconds. If it takes this long, the disk has a fault. */
const PID_FILE_TIMEOUT_MS = 10_000;
const PID_FILE_PAUSE_MAX_MS = 16;

/**
 * The child writes its pid before it becomes the engine, so a crash of this replica cannot lose the engine.
 *
 * 1. The child writes `pid.<token>`.
 * 2. The child reads the token file, and ends if a later start has replaced its token.
 * 3. The child joins its cgroup, if it has one. All processes that it starts are then in that cgroup too.
 * 4. The child lowers the priority of its session. Linux shares the processor between sessions, so a hundred engines that
 *    boot would leave the service a hundredth of it.
 * 5. The child renames `pid.<token>` to `pid`, and becomes the engine.
 *
 * A later start writes its token first, then kills the children that `pid.*` names. So a delayed child reads the new
 * token, or the later start finds and kills the child. At most one of them becomes the engine.
 *
 * `env` removes the variables that shells add to the environment by themselves.
 */
const SCRIPT = `
stat= boot=
[ -r "/proc/$$/stat" ] && read -r stat < "/proc/$$/stat"
[ -r /proc/sys/kernel/random/boot_id ] && read -r boot < /proc/sys/kernel/random/boot_id
printf '%s\\n%s\\n%s\\n%s\\n' "$$" "$boot" "$stat" "$3" > "$1.$3" || exit 125
if ! read -r token < "$2" || [ "$token" != "$3" ]; then rm -f "$1.$3"; exit 125; fi
if [ -n "$4" ]; then { printf '%s' "$$" > "$4/cgroup.procs"; } 2>/dev/null; fi
if [ -w /proc/self/autogroup ]; then { echo 10 > /proc/self/autogroup; } 2>/dev/null; fi
mv "$1.$3" "$1" || exit 125
shift 4
exec /usr/bin/env -u PWD -u OLDPWD -u SHLVL -u _ "$@"
`;

/** The child has a session of its own and writes its log files itself, so it outlives this replica. */
export async function spawnProcess(spawner: Spawner, input: SpawnInput): Promise<SpawnedProcess> {
  await assertCommand(input.command, input.environment["PATH"] ?? "");
  const stdout = await open(input.stdoutFile, "a", 0o600);
  const stderr = await open(input.stderrFile, "a", 0o600);
  try {
    const { pidFile, tokenFile, token, cgroup } = input;
    const own = [pidFile, tokenFile, token, cgroup];
    const args = ["-c", SCRIPT, "engine", ...own, ...input.command];
    const { environment } = input;
    const child = await spawner.spawn({ args, environment, stdout: stdout.fd, stderr: stderr.fd });
    return { engineProcess: await waitForPidFile(child, input.pidFile), exited: child.exited };
  } catch (error) {
    throw new RuntimeFailure("refused", `the engine's command ${input.command[0]} does not start`, error);
  } finally {
    await stdout.close();
    await stderr.close();
  }
}

async function waitForPidFile(child: Child, pidFile: string): Promise<EngineProcess | undefined> {
  const deadline = performance.now() + PID_FILE_TIMEOUT_MS;
  for (let pauseMs = 2; ; pauseMs = Math.min(2 * pauseMs, PID_FILE_PAUSE_MAX_MS)) {
    const { hasExited } = child;
    const engineProcess = await readEngineProcess(pidFile);
    if (engineProcess !== undefined || hasExited) return engineProcess;
    if (performance.now() >= deadline) child.kill();
    await sleep(pauseMs);
  }
}

/** Checks the command before the start: later, the shell could report a wrong one only in the engine's log. */
async function assertCommand(command: readonly string[], path: string): Promise<void> {
  const [name] = command;
  if (name === undefined || name === "") {
    throw new RuntimeFailure("refused", "the engine's command is empty: set ORCH_ENGINE_COMMAND");
  }
  const candidates = name.includes("/")
    ? [isAbsolute(name) ? name : resolve(name)]
    : path.split(delimiter).map((folder) => join(folder, name));
  for (const candidate of candidates) {
    if (await isExecutable(candidate)) return;
  }
  throw new RuntimeFailure("refused", `the engine's command ${name} is not an executable file`);
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, fileConstants.X_OK).then(
    () => true,
    () => false,
  );
}
