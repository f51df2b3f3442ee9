// A replica that kills itself during the start of a container. At `spawn`, the child is stopped before its first action
// and continues after SIGCONT; this program prints its pid. At `start`, the replica dies once the start has returned.
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
