// An orchestrator that dies in the middle of a start: as soon as there is a child, which has done nothing yet and goes
// on when it is continued, or when the start has returned. The child's pid is all that is said.
import childProcess from "node:child_process";
import { readFileSync, writeSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import type { ContainerSpec } from "../../server/runtime/engine-runtime.ts";
import { openProcessRuntime } from "../../server/runtime/process/runtime.ts";

interface Input {
  point: "spawn" | "start";
  spec: ContainerSpec;
  instanceId: string;
  dataDir: string;
  command: string[];
}

const { point, spec, ...options } = JSON.parse(process.argv[2] ?? "{}") as Input;
const runtime = await openProcessRuntime({ ...options, marked: false, log: { warn: () => {} } });
const { containerId } = await runtime.ensure(spec);
if (point === "spawn") {
  const { spawn } = childProcess;
  const spawnAndDie = (program: string, args: string[], settings: childProcess.SpawnOptions): never => {
    const script = 'kill -STOP "$$"; exec "$0" "$@"';
    const { pid } = spawn("/bin/sh", ["-c", script, program, ...args], settings);
    while (!/^\d+ \(sh\) T/.test(readFileSync(`/proc/${pid}/stat`, "utf8")));
    writeSync(process.stdout.fd, String(pid));
    process.kill(process.pid, "SIGKILL");
    throw new Error("not reached");
  };
  Object.assign(childProcess, { spawn: spawnAndDie });
  syncBuiltinESMExports();
}
await runtime.start(containerId);
process.kill(process.pid, "SIGKILL");
