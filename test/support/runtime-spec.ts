import { randomUUID } from "node:crypto";
import type { ContainerSpec } from "../../server/runtime/engine-runtime.ts";
import { takePort } from "./ports.ts";

export const FIXTURE_KEY = "ehe_a-key-that-never-enters-the-container";
/** SHA-256 of FIXTURE_KEY. */
export const FIXTURE_KEY_HASH = "e76c513ec4f1530cf2163815bffd094ecc657db1b2443560ca8e0167eac1f924";

/** A spec of a new engine on a free port. `overrides` take precedence. */
export async function makeSpec(overrides: Partial<ContainerSpec> = {}): Promise<ContainerSpec> {
  const engineId = overrides.engineId ?? randomUUID();
  return {
    engineId,
    incarnation: 1,
    fencingToken: 7,
    specHash: "spec-hash",
    imageId: "fixture",
    volumeName: `engine-data-${engineId}`,
    hostPort: overrides.hostPort ?? (await takePort()),
    enginePort: 8000,
    network: "engine_net",
    internalSubnet: null,
    catalogPath: "/",
    limits: { memoryMb: 256, cpus: 1, pids: 64, readOnly: false, capAdd: [], user: null },
    openFiles: 4096,
    tmpMb: 32,
    refusesRoot: true,
    stopGraceSeconds: 10,
    ...overrides,
    environment: {
      ENGINE_KEY_HASH: FIXTURE_KEY_HASH,
      SQLITE_DB_PATH: "/data/brain.sqlite",
      CATALOG_DIR: "/catalog",
      ...overrides.environment,
    },
  };
}
