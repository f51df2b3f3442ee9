import { createHash } from "node:crypto";
import canonicalize from "canonicalize";
import type { EngineRow } from "../../../db/engines.ts";
import type { EngineSpec } from "../../../db/schema.ts";
import type { Config } from "../../config/config.ts";
import type { ContainerSpec } from "../../runtime/engine-runtime.ts";

/** The paths inside a container that the engine contract fixes. */
export const SQLITE_DB_PATH = "/data/brain.sqlite";
export const CATALOG_DIR = "/catalog";

/** Stands for the image where ORCH_ENGINE_IMAGE is not set: the process runtime runs ORCH_ENGINE_COMMAND. */
export const PROCESS_IMAGE = "process";

export function toDefaultImage(config: Config): string {
  return config.engineImage ?? PROCESS_IMAGE;
}

/** The present defaults, with the chosen image, the product's own limits and its kind of network. */
export function toEngineSpec(
  config: Config,
  choice: Pick<EngineSpec, "image" | "imageFrom" | "limitOverrides" | "internal">,
): EngineSpec {
  const { internal, ...chosen } = choice;
  return {
    ...chosen,
    // An absent field, not an undefined one: a spec from the database has no undefined fields.
    ...(internal === true && { internal }),
    imageId: null,
    environmentNames: Object.keys(config.passthrough).toSorted(),
    limits: { ...config.limits, ...choice.limitOverrides },
    network: internal === true ? `${config.engineNetwork}_internal` : config.engineNetwork,
    enginePort: config.enginePort,
    catalogPath: config.catalogPath,
  };
}

/** SHA-256 over the canonical spec. */
export function toSpecHash(spec: EngineSpec): string {
  return createHash("sha256")
    .update(canonicalize(spec) ?? "")
    .digest("hex");
}

/**
 * The container to create. During a key rotation it gets the next key. Its environment then shows which key it holds,
 * so that the rotation survives a crash at any point.
 */
export function toContainerSpec(config: Config, row: EngineRow, imageId: string): ContainerSpec {
  const passed = row.spec.environmentNames.flatMap((name) => {
    const value = config.passthrough[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return {
    engineId: row.id,
    incarnation: row.incarnation,
    fencingToken: row.fencingToken,
    specHash: row.specHash,
    imageId,
    volumeName: row.volumeName,
    hostPort: row.hostPort,
    enginePort: row.spec.enginePort,
    network: row.spec.network,
    internalSubnet: row.spec.internal === true ? config.internalSubnet : null,
    catalogPath: row.spec.catalogPath,
    environment: {
      ...Object.fromEntries(passed),
      ENGINE_KEY_HASH: row.nextKeyHash ?? row.keyHash,
      SQLITE_DB_PATH,
      CATALOG_DIR,
    },
    limits: row.spec.limits,
    openFiles: config.engineOpenFiles,
    tmpMb: Math.min(config.engineTmpMb, Math.ceil(row.spec.limits.memoryMb / 2)),
    // An engine of an older version may own its volume as root, and must keep running.
    refusesRoot: row.firstReadyAt === null,
    stopGraceSeconds: Math.ceil(config.stopGraceMs / 1000),
  };
}
