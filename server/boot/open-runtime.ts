import { fileURLToPath } from "node:url";
import { ensureInstance, findRowsOnRuntime, recordRuntime, type InstanceRow } from "../../db/instance.ts";
import type { Db } from "../../db/client.ts";
import type { Config } from "../config/config.ts";
import type { Log } from "../log.ts";
import { isDockerReachable } from "../runtime/docker/reachable.ts";
import { openDockerRuntime } from "../runtime/docker/runtime.ts";
import { RuntimeFailure, type EngineRuntime, type RuntimeKind } from "../runtime/engine-runtime.ts";
import { openProcessRuntime } from "../runtime/process/runtime.ts";

export interface OpenRuntimeInput {
  db: Db;
  config: Config;
  log: Log;
  instance: InstanceRow;
}

const REFERENCE_ENGINE = fileURLToPath(new URL("../../engine/main.ts", import.meta.url));

/** What binds the database to its runtime: engines, or tombstones only. undefined: nothing. */
type Binding = Awaited<ReturnType<typeof findRowsOnRuntime>>;

/**
 * Opens the runtime of this database's engines. While there are engines or tombstones, the runtime cannot change. A
 * daemon that is down is unreachable; it never makes the start use another runtime. Writes nothing, because another
 * replica may serve this database: see `bindRuntime`.
 */
export async function openRuntime(input: OpenRuntimeInput): Promise<EngineRuntime> {
  const { config, instance, log } = input;
  const binding = await findRowsOnRuntime(input.db);
  const { kind, why } = await chooseRuntime(config, instance, binding);
  // Without a binding, the runtime host may change too. If the recorded daemon is down, the host stays.
  const mayMove = binding === undefined && (await isHostKnowable(kind, input));
  const host = mayMove ? undefined : (instance.runtimeHost ?? undefined);
  log.info({ runtime: kind, why, instanceId: instance.id }, "runtime chosen");
  const runtime = await openKind(kind, input, host);
  if (host === undefined || host === runtime.host) return runtime;
  await runtime[Symbol.asyncDispose]();
  throw toWrongHost(instance, runtime);
}

/**
 * Marks the runtime and records it as this database's. Only the database's sole replica may call this. Throws if the
 * database got engines on another runtime since `openRuntime`.
 */
export async function bindRuntime(
  { db, instance: given }: Pick<OpenRuntimeInput, "db" | "instance">,
  runtime: EngineRuntime,
): Promise<void> {
  const instance = await ensureInstance(db, given.id);
  const isRecorded = instance.runtimeHost === runtime.host;
  if ((await findRowsOnRuntime(db)) !== undefined) {
    if (!isRecorded) throw toWrongHost(instance, runtime);
    return;
  }
  try {
    await runtime.markInstance();
  } catch (error) {
    // The daemon is down. Its record and its marker stay valid.
    if (isRecorded && error instanceof RuntimeFailure) return;
    throw error;
  }
  await recordRuntime(db, { runtimeKind: runtime.kind, runtimeHost: runtime.host });
}

function toWrongHost(instance: InstanceRow, runtime: EngineRuntime): Error {
  return new Error(
    `this database's engines live on ${instance.runtimeHost}, not on ${runtime.host}: ` +
      "start the service on the host of its engines, or give it another database",
  );
}

/** Only the daemon itself can tell its host. False: docker is recorded, and its daemon is down. */
async function isHostKnowable(kind: RuntimeKind, { config, instance }: OpenRuntimeInput): Promise<boolean> {
  return (
    kind !== "docker" || instance.runtimeKind !== "docker" || (await isDockerReachable(config.dockerHost))
  );
}

async function chooseRuntime(
  config: Config,
  instance: InstanceRow,
  binding: Binding,
): Promise<{ kind: RuntimeKind; why: string }> {
  const { runtimeChoice: choice } = config;
  const recorded = instance.runtimeKind;
  if (recorded === "docker" || recorded === "process") {
    if (choice === "auto" || choice === recorded)
      return { kind: recorded, why: "the database records this runtime" };
    if (binding !== undefined) throw new Error(toRefusal(choice, recorded, binding));
  }
  if (choice !== "auto") return { kind: choice, why: "ORCH_ENGINE_BACKEND names it" };
  if (config.engineImage === undefined) return { kind: "process", why: "ORCH_ENGINE_IMAGE is not set" };
  if (await isDockerReachable(config.dockerHost))
    return { kind: "docker", why: "a Docker daemon answers and an image is set" };
  return { kind: "process", why: "no Docker daemon answers" };
}

function toRefusal(choice: string, recorded: RuntimeKind, binding: NonNullable<Binding>): string {
  const remedy =
    binding === "engines"
      ? "destroy them first"
      : `the last ones were destroyed a short time ago, so run on ${recorded} for five minutes first`;
  return (
    `ORCH_ENGINE_BACKEND is ${choice}, but this database's engines live on the ${recorded} runtime: ` +
    `${remedy}, or use another database`
  );
}

async function openKind(
  kind: RuntimeKind,
  { config, instance, log }: OpenRuntimeInput,
  host: string | undefined,
): Promise<EngineRuntime> {
  // `check` requires a recorded marker even if the host may move, until `bindRuntime` leaves a new one.
  const shared = { instanceId: instance.id, marked: instance.runtimeHost !== null, log };
  if (kind === "docker") return openDockerRuntime({ ...shared, dockerHost: config.dockerHost, host });
  const command = config.engineCommand ?? [process.execPath, REFERENCE_ENGINE];
  return openProcessRuntime({
    ...shared,
    dataDir: config.dataDir,
    command,
    passthrough: config.passthrough,
  });
}
