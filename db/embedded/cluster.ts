import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { PostgresBinaries } from "./binaries.ts";
import { giveTree, postgresEnvironment, toCommand, type Launcher } from "./launcher.ts";
import { makeDirectory } from "../make-directory.ts";
import { findProcess } from "../process-identity.ts";

/** The files of one Postgres cluster, all inside the data directory. */
export interface Cluster {
  readonly dir: string;
  readonly pgdata: string;
  readonly logFile: string;
  readonly password: string;
}

export const clusterUser = "enginehouse";
const draftPrefix = "postgres.new-";

interface InitialiseInput {
  readonly dataDir: string;
  readonly binaries: PostgresBinaries;
  readonly launcher: Launcher;
  readonly durable: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** undefined: this data directory has no cluster yet. */
export async function findCluster(dataDir: string): Promise<Cluster | undefined> {
  const dir = join(dataDir, "postgres");
  if (!(await exists(join(dir, "pgdata", "PG_VERSION")))) return undefined;
  const password = (await readFile(join(dir, "password"), "utf8")).trim();
  return toCluster(dir, password);
}

/** Creates a cluster under a draft name and then renames it, so a crash leaves either a complete cluster or none. */
export async function initialiseCluster(input: InitialiseInput): Promise<Cluster> {
  const { dataDir, binaries, launcher } = input;
  await makeDirectory(dataDir, 0o700);
  await removeAbandonedDrafts(dataDir);
  const draftDir = await mkdtemp(join(dataDir, `${draftPrefix}${process.pid}-`));
  try {
    const draft = toCluster(draftDir, randomBytes(24).toString("base64url"));
    await writeFile(join(draftDir, "password"), draft.password, { mode: 0o600 });
    await mkdir(draft.pgdata, { mode: 0o700 });
    await giveTree(launcher, draftDir);
    await runInitdb(input, draft);
    await renameUnlessTaken(draftDir, join(dataDir, "postgres"));
  } finally {
    await rm(draftDir, { recursive: true, force: true, maxRetries: 10 });
  }
  const cluster = await findCluster(dataDir);
  if (cluster === undefined) throw new Error(`${binaries.initdb} left no cluster in ${dataDir}`);
  return cluster;
}

async function runInitdb(input: InitialiseInput, draft: Cluster): Promise<void> {
  const { binaries, launcher, durable } = input;
  const [command, args] = toCommand(launcher, binaries.initdb, [
    `--pgdata=${draft.pgdata}`,
    `--username=${clusterUser}`,
    `--pwfile=${join(draft.dir, "password")}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
    durable ? "--sync-method=fsync" : "--no-sync",
  ]);
  try {
    await promisify(execFile)(command, args, {
      env: postgresEnvironment,
      cwd: draft.dir,
      signal: input.signal,
    });
  } catch (error) {
    input.signal?.throwIfAborted();
    const output = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw new Error(`initdb failed in ${draft.dir}: ${output || String(error)}`, { cause: error });
  }
}

/** Removes the drafts of processes that were killed during initdb. */
async function removeAbandonedDrafts(dataDir: string): Promise<void> {
  for (const name of await readdir(dataDir)) {
    if (!name.startsWith(draftPrefix)) continue;
    const pid = Number.parseInt(name.slice(draftPrefix.length), 10);
    if ((await findProcess(pid)) !== undefined) continue;
    // initdb may survive its parent for a moment and still write.
    await rm(join(dataDir, name), { recursive: true, force: true, maxRetries: 10 });
  }
}

async function renameUnlessTaken(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    // Another process was faster: use its cluster.
    if (await exists(join(to, "pgdata", "PG_VERSION"))) return;
    throw error;
  }
}

function toCluster(dir: string, password: string): Cluster {
  return { dir, pgdata: join(dir, "pgdata"), logFile: join(dir, "postgres.log"), password };
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
