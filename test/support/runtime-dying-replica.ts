// A replica that kills itself once the start of a container has returned, or at its spawn if `runtime-dying-spawn.ts` is
// loaded too.
import type { ContainerSpec } from "../../server/runtime/engine-runtime.ts";
import { openProcessRuntime } from "../../server/runtime/process/runtime.ts";

interface Input {
  spec: ContainerSpec;
  instanceId: string;
  dataDir: string;
  command: string[];
}

const { spec, ...options } = JSON.parse(process.argv[2] ?? "{}") as Input;
const runtime = await openProcessRuntime({ ...options, marked: false, log: { warn: () => {} } });
const { containerId } = await runtime.ensure(spec);
await runtime.start(containerId);
process.kill(process.pid, "SIGKILL");
