import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { findCluster } from "../db/embedded/cluster.ts";
import { findPostmaster, stopPostmaster } from "../db/embedded/postmaster.ts";
import { openDockerRuntime } from "../server/runtime/docker/runtime.ts";
import type { EngineRuntime } from "../server/runtime/engine-runtime.ts";
import { openProcessRuntime } from "../server/runtime/process/runtime.ts";
import type { RuntimeChoice } from "./choose-runtime.ts";
import type { DemoService } from "./demo-service.ts";
import { listProcessesOf } from "./processes-of.ts";

/** Everything that the demo has made so far and must remove. */
export interface Traces {
  /** The service's data directory, with the database and the engines' folders. */
  readonly dataDir: string;
  /** Resolves when the runtime is chosen, which may include building an image. */
  choosing?: Promise<RuntimeChoice>;
  runtime?: RuntimeChoice;
  service?: DemoService;
}

const SILENT = { info: () => undefined, warn: () => undefined };
const POLL_MS = 50;
const EXIT_TIMEOUT_MS = 5_000;

/**
 * Removes everything, at any point of the demo: the service first, so that it makes no more engines, then its engines,
 * its database and its files. Continues after a failure and throws the first one.
 */
export async function removeTraces(traces: Traces): Promise<void> {
  const failures: unknown[] = [];
  const attempt = async (work: () => Promise<unknown>) => {
    await work().catch((error: unknown) => failures.push(error));
  };
  // An image build must end first, so that the search for leftovers sees its result.
  await traces.choosing?.catch(() => undefined);
  await attempt(async () => traces.service?.stop());
  await attempt(() => removeEngines(traces));
  await attempt(() => stopPostgres(traces.dataDir));
  await attempt(() => killProcesses(traces.dataDir));
  await attempt(() => rm(traces.dataDir, { recursive: true, force: true, maxRetries: 10 }));
  if (failures.length > 0) throw failures[0];
}

/** Uses the runtime directly, because the service may be dead. */
async function removeEngines(traces: Traces): Promise<void> {
  const instanceId = traces.service?.instanceId;
  if (instanceId === undefined || traces.runtime === undefined) return;
  await using runtime = await openRuntime(traces.runtime, { instanceId, dataDir: traces.dataDir });
  await runtime.removeInstance();
}

async function openRuntime(
  choice: RuntimeChoice,
  { instanceId, dataDir }: { instanceId: string; dataDir: string },
): Promise<EngineRuntime> {
  const options = { instanceId, marked: false, log: SILENT };
  switch (choice.kind) {
    case "docker":
      return openDockerRuntime({ ...options, dockerHost: choice.dockerHost });
    case "process":
      return openProcessRuntime({ ...options, dataDir, command: [process.execPath] });
  }
}

/** A killed service leaves its database running: the next start of the service would adopt it. */
async function stopPostgres(dataDir: string): Promise<void> {
  const cluster = await findCluster(dataDir);
  const postmaster = cluster && (await findPostmaster(cluster.pgdata));
  if (postmaster) await stopPostmaster(postmaster);
}

/** Only processes of the demo have the name of its data directory, so this kills all of them. */
async function killProcesses(dataDir: string): Promise<void> {
  const deadline = performance.now() + EXIT_TIMEOUT_MS;
  for (;;) {
    const processes = await listProcessesOf(dataDir);
    if (processes.length === 0 || performance.now() > deadline) return;
    for (const { pid } of processes) kill(pid);
    await sleep(POLL_MS);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // The process has already ended.
  }
}
