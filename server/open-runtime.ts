import { fileURLToPath } from "node:url";
import { findPlaced, recordRuntime, type InstanceRow } from "../db/instance.ts";
import type { Db } from "../db/client.ts";
import type { Config } from "./config.ts";
import type { Log } from "./log.ts";
import { isDockerReachable } from "./runtime/docker-reachable.ts";
import { openDockerRuntime } from "./runtime/docker-runtime.ts";
import type { EngineRuntime, RuntimeKind } from "./runtime/engine-runtime.ts";
import { openProcessRuntime } from "./runtime/process-runtime.ts";

export interface OpenRuntimeInput {
  db: Db;
  config: Config;
  log: Log;
  instance: InstanceRow;
}

const REFERENCE_ENGINE = fileURLToPath(new URL("../engine/main.ts", import.meta.url));

/**
 * Opens the runtime that this database's engines live on. While there is one of them the choice is remembered: a
 * daemon that is away later is unreachable, and never a silent change to another runtime.
 */
export async function openRuntime(given: OpenRuntimeInput): Promise<EngineRuntime> {
  const { config, log } = given;
  const placed = await findPlaced(given.db);
  const isFree = placed === undefined && config.backend !== given.instance.runtimeKind;
  const instance = isFree ? toUnplaced(given.instance) : given.instance;
  const input = { ...given, instance };
  const { kind, why } = await chooseRuntime(config, instance, placed);
  log.info({ runtime: kind, why, instanceId: instance.id }, "runtime chosen");
  const runtime = await openKind(kind, input);
  try {
    if (instance.runtimeHost === null) {
      await runtime.markInstance();
      await recordRuntime(input.db, { runtimeKind: runtime.kind, runtimeHost: runtime.host });
    } else if (instance.runtimeHost !== runtime.host) {
      throw new Error(
        `this database's engines live on ${instance.runtimeHost}, not on ${runtime.host}: ` +
          "start the orchestrator where its engines are, or give it another database",
      );
    }
    return runtime;
  } catch (error) {
    await runtime[Symbol.asyncDispose]();
    throw error;
  }
}

/** Nothing of it is anywhere, so that it may go wherever the next start says. */
function toUnplaced(instance: InstanceRow): InstanceRow {
  return { ...instance, runtimeKind: null, runtimeHost: null };
}

async function chooseRuntime(
  config: Config,
  instance: InstanceRow,
  placed: "engines" | "tombstones" | undefined,
): Promise<{ kind: RuntimeKind; why: string }> {
  const known = instance.runtimeKind;
  if (known === "docker" || known === "process") {
    if (config.backend === "auto" || config.backend === known)
      return { kind: known, why: "this database's engines live there" };
    throw new Error(
      `ORCH_ENGINE_BACKEND is ${config.backend}, but this database's engines live on the ${known} runtime: ` +
        (placed === "tombstones"
          ? `those that were destroyed are looked for once more, so run on ${known} for five minutes, `
          : "destroy them first, ") +
        "or use another database",
    );
  }
  if (config.backend !== "auto") return { kind: config.backend, why: "ORCH_ENGINE_BACKEND says so" };
  if (config.engineImage === undefined) return { kind: "process", why: "ORCH_ENGINE_IMAGE is not set" };
  if (await isDockerReachable(config.dockerHost))
    return { kind: "docker", why: "a Docker daemon answers and an image is set" };
  return { kind: "process", why: "no Docker daemon answers" };
}

async function openKind(kind: RuntimeKind, input: OpenRuntimeInput): Promise<EngineRuntime> {
  const { config, instance, log } = input;
  const place = { instanceId: instance.id, marked: instance.runtimeHost !== null, log };
  if (kind === "docker") {
    const host = instance.runtimeHost ?? undefined;
    return openDockerRuntime({ ...place, dockerHost: config.dockerHost, host });
  }
  const command = config.engineCommand ?? [process.execPath, REFERENCE_ENGINE];
  return openProcessRuntime({ ...place, dataDir: config.dataDir, command });
}
