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

/** The present defaults, with the chosen image and the product's own limits. */
export function toEngineSpec(
  config: Config,
  choice: Pick<EngineSpec, "image" | "imageFrom" | "limitOverrides">,
): EngineSpec {
  return {
    ...choice,
    imageId: null,
    environmentNames: Object.keys(config.passthrough).toSorted(),
    limits: { ...config.limits, ...choice.limitOverrides },
    network: config.engineNetwork,
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
    catalogPath: row.spec.catalogPath,
    environment: {
      ...Object.fromEntries(passed),
      ENGINE_KEY_HASH: row.nextKeyHash ?? row.keyHash,
      SQLITE_DB_PATH,
      CATALOG_DIR,
    },
    limits: row.spec.limits,
    stopGraceSeconds: Math.ceil(config.stopGraceMs / 1000),
  };
}
