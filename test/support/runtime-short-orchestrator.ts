// An orchestrator that dies in the middle of a start: as soon as there is a child, or when the start has returned.
import { readdirSync, readFileSync } from "node:fs";
import type { ContainerSpec } from "../../server/runtime/engine-runtime.ts";
import { openProcessRuntime } from "../../server/runtime/process-runtime.ts";

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
  const dieWithChild = () => {
    if (hasChild()) process.kill(process.pid, "SIGKILL");
    setImmediate(dieWithChild);
  };
  dieWithChild();
}
await runtime.start(containerId);
process.kill(process.pid, "SIGKILL");

function hasChild(): boolean {
  const threads = readdirSync("/proc/self/task");
  return threads.some((id) => readFileSync(`/proc/self/task/${id}/children`, "utf8") !== "");
}
