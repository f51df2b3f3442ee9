import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { findCluster } from "../db/embedded/cluster.ts";
import { findPostmaster, stopPostmaster } from "../db/embedded/postmaster.ts";
import { openDockerRuntime } from "../server/runtime/docker/runtime.ts";
import type { EngineRuntime } from "../server/runtime/engine-runtime.ts";
import { openProcessRuntime } from "../server/runtime/process/runtime.ts";
import type { Backend } from "./choose-backend.ts";
import type { DemoService } from "./demo-service.ts";
import { listProcessesOf } from "./processes-of.ts";

/** Everything that the demo has made so far, and so has to take away. */
export interface Traces {
  /** The service's data directory, database and engine folders included. */
  readonly dataDir: string;
  /** Settles when the runtime is chosen, which may mean an image being built. */
  choosing?: Promise<Backend>;
  backend?: Backend;
  service?: DemoService;
}

const SILENT = { info: () => undefined, warn: () => undefined };
const POLL_MS = 50;
const GO_PATIENCE_MS = 5_000;

/**
 * Takes everything away, from whatever point the demo has reached: the service first, so that nothing makes engines
 * any more, then its engines, then its database and its files. Goes on after a failure and throws the first.
 */
export async function removeTraces(traces: Traces): Promise<void> {
  const failures: unknown[] = [];
  const attempt = async (work: () => Promise<unknown>) => {
    await work().catch((error: unknown) => failures.push(error));
  };
  // A build that is under way ends before the daemon is asked what there is.
  await traces.choosing?.catch(() => undefined);
  await attempt(async () => traces.service?.stop());
  await attempt(() => removeEngines(traces));
  await attempt(() => stopLeftPostgres(traces.dataDir));
  await attempt(() => endStragglers(traces.dataDir));
  await attempt(() => rm(traces.dataDir, { recursive: true, force: true, maxRetries: 10 }));
  if (failures.length > 0) throw failures[0];
}

/** By the runtime itself: the service that would know them may be dead. */
async function removeEngines(traces: Traces): Promise<void> {
  const instanceId = traces.service?.instanceId;
  if (instanceId === undefined || traces.backend === undefined) return;
  await using runtime = await openBackend(traces.backend, { instanceId, dataDir: traces.dataDir });
  await runtime.removeInstance();
}

async function openBackend(
  backend: Backend,
  { instanceId, dataDir }: { instanceId: string; dataDir: string },
): Promise<EngineRuntime> {
  const place = { instanceId, marked: false, log: SILENT };
  switch (backend.kind) {
    case "docker":
      return openDockerRuntime({ ...place, dockerHost: backend.dockerHost });
    case "process":
      return openProcessRuntime({ ...place, dataDir, command: [process.execPath] });
  }
}

/** A service that was killed leaves its database running, for the next start to adopt. */
async function stopLeftPostgres(dataDir: string): Promise<void> {
  const cluster = await findCluster(dataDir);
  const postmaster = cluster && (await findPostmaster(cluster.pgdata));
  if (postmaster) await stopPostmaster(postmaster);
}

/** The directory's name is the demo's alone, and so is every process that has it. */
async function endStragglers(dataDir: string): Promise<void> {
  const deadline = performance.now() + GO_PATIENCE_MS;
  for (;;) {
    const stragglers = await listProcessesOf(dataDir);
    if (stragglers.length === 0 || performance.now() > deadline) return;
    for (const { pid } of stragglers) kill(pid);
    await sleep(POLL_MS);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It went by itself.
  }
}
