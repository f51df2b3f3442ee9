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

type Placed = Awaited<ReturnType<typeof findRowsOnRuntime>>;

/**
 * Opens the runtime that this database's engines live on. While there is one of them the choice is fixed: a daemon
 * that is away later is unreachable, and never a silent change to another runtime. Writes nothing, since another
 * orchestrator may serve this database: `settleRuntime` does.
 */
export async function openRuntime(given: OpenRuntimeInput): Promise<EngineRuntime> {
  const { config, log } = given;
  const placed = await findRowsOnRuntime(given.db);
  const { kind, why } = await chooseRuntime(config, given.instance, placed);
  const isFree = placed === undefined && (await isThere(kind, given));
  // Nothing of it is anywhere, so that it may be another host, too.
  const instance = isFree ? { ...given.instance, runtimeKind: null, runtimeHost: null } : given.instance;
  log.info({ runtime: kind, why, instanceId: instance.id }, "runtime chosen");
  // A marker that is on record is looked for all the same, until `settleRuntime` leaves another.
  const marked = given.instance.runtimeHost !== null;
  const runtime = await openKind(kind, { ...given, instance, marked });
  if (instance.runtimeHost === null || instance.runtimeHost === runtime.host) return runtime;
  await runtime[Symbol.asyncDispose]();
  throw livesElsewhere(instance, runtime);
}

/**
 * From now on this database's engines live on this runtime. To be called by its only orchestrator. Throws when engines
 * have come to live elsewhere since the runtime was chosen.
 */
export async function settleRuntime(
  { db, instance: given }: Pick<OpenRuntimeInput, "db" | "instance">,
  runtime: EngineRuntime,
): Promise<void> {
  const instance = await ensureInstance(db, given.id);
  const isKnown = instance.runtimeHost === runtime.host;
  if ((await findRowsOnRuntime(db)) !== undefined) {
    if (!isKnown) throw livesElsewhere(instance, runtime);
    return;
  }
  try {
    await runtime.markInstance();
  } catch (error) {
    // It is away, and what is on record of it still holds.
    if (isKnown && error instanceof RuntimeFailure) return;
    throw error;
  }
  await recordRuntime(db, { runtimeKind: runtime.kind, runtimeHost: runtime.host });
}

function livesElsewhere(instance: InstanceRow, runtime: EngineRuntime): Error {
  return new Error(
    `this database's engines live on ${instance.runtimeHost}, not on ${runtime.host}: ` +
      "start the orchestrator where its engines are, or give it another database",
  );
}

/** A daemon that is on record need not be there for a start. */
async function isThere(kind: RuntimeKind, { config, instance }: OpenRuntimeInput): Promise<boolean> {
  return (
    kind !== "docker" || instance.runtimeKind !== "docker" || (await isDockerReachable(config.dockerHost))
  );
}

async function chooseRuntime(
  config: Config,
  instance: InstanceRow,
  placed: Placed,
): Promise<{ kind: RuntimeKind; why: string }> {
  const known = instance.runtimeKind;
  if (known === "docker" || known === "process") {
    if (config.backend === "auto" || config.backend === known)
      return { kind: known, why: "this database's engines live there" };
    if (placed) throw new Error(toRefusal(config, known, placed));
  }
  if (config.backend !== "auto") return { kind: config.backend, why: "ORCH_ENGINE_BACKEND says so" };
  if (config.engineImage === undefined) return { kind: "process", why: "ORCH_ENGINE_IMAGE is not set" };
  if (await isDockerReachable(config.dockerHost))
    return { kind: "docker", why: "a Docker daemon answers and an image is set" };
  return { kind: "process", why: "no Docker daemon answers" };
}

function toRefusal({ backend }: Config, known: RuntimeKind, placed: NonNullable<Placed>): string {
  const remedy =
    placed === "engines"
      ? "destroy them first"
      : `those that were destroyed are looked for once more, so run on ${known} for five minutes`;
  return (
    `ORCH_ENGINE_BACKEND is ${backend}, but this database's engines live on the ${known} runtime: ` +
    `${remedy}, or use another database`
  );
}

async function openKind(
  kind: RuntimeKind,
  input: OpenRuntimeInput & { marked: boolean },
): Promise<EngineRuntime> {
  const { config, instance, marked, log } = input;
  const place = { instanceId: instance.id, marked, log };
  if (kind === "docker") {
    const host = instance.runtimeHost ?? undefined;
    return openDockerRuntime({ ...place, dockerHost: config.dockerHost, host });
  }
  const command = config.engineCommand ?? [process.execPath, REFERENCE_ENGINE];
  return openProcessRuntime({ ...place, dataDir: config.dataDir, command });
}
