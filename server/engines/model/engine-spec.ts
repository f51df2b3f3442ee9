import { createHash } from "node:crypto";
import canonicalize from "canonicalize";
import type { EngineRow } from "../../../db/engines.ts";
import type { EngineSpec } from "../../../db/schema.ts";
import type { Config } from "../../config/config.ts";
import type { ContainerSpec } from "../../runtime/engine-runtime.ts";

/** Where the contract puts things inside a container. */
export const SQLITE_DB_PATH = "/data/brain.sqlite";
export const CATALOG_DIR = "/catalog";

/** The image of an installation that has none: the process runtime runs ORCH_ENGINE_COMMAND. */
export const PROCESS_IMAGE = "process";

export function toDefaultImage(config: Config): string {
  return config.engineImage ?? PROCESS_IMAGE;
}

/** Today's defaults with the image chosen and the product's own limits. */
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
 * What the runtime is asked to make. The key is the next one while a rotation is under way: the container's own
 * environment then says which key it holds, whatever happens in between.
 */
export function toContainerSpec(config: Config, row: EngineRow, imageId: string): ContainerSpec {
  if (row.hostPort === null) throw new Error(`engine ${row.id} has no host port to be made with`);
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
