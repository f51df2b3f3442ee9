// Loaded with `--import` before a replica and its threads: the first spawn kills the replica. The child is stopped before
// its first action and continues after SIGCONT; the replica prints its pid.
import childProcess from "node:child_process";
import { readFileSync, writeSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const { spawn } = childProcess;
const spawnAndDie = (program: string, args: string[], settings: childProcess.SpawnOptions): never => {
  const script = 'kill -STOP "$$"; exec "$0" "$@"';
  const { pid } = spawn("/bin/sh", ["-c", script, program, ...args], settings);
  while (!/^\d+ \(sh\) T/.test(readFileSync(`/proc/${pid}/stat`, "utf8")));
  // Standard output by number: the stream of a thread has no descriptor.
  writeSync(1, String(pid));
  process.kill(process.pid, "SIGKILL");
  throw new Error("not reached");
};
Object.assign(childProcess, { spawn: spawnAndDie });
syncBuiltinESMExports();
