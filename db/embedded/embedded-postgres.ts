import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { getPostgresBinaries } from "./binaries.ts";
import { clusterUser, findCluster, initialiseCluster, type Cluster } from "./cluster.ts";
import { getLauncher } from "./launcher.ts";
import { findPostmaster, stopPostmaster, waitUntilReady, type Postmaster } from "./postmaster.ts";
import { makeDirectory } from "../make-directory.ts";
import { PostmasterStartError, startPostmaster } from "./start-postmaster.ts";

export interface EmbeddedPostgres extends AsyncDisposable {
  /** The url of the superuser. It contains the password, so it must not be logged. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Whether the server was already running, because an earlier process did not close it. */
  readonly adopted: boolean;
  /** Stops the server, even if it was adopted. */
  close(): Promise<void>;
}

interface EmbeddedPostgresInput {
  /** The cluster is in its subdirectory `postgres/`. The caller must hold the lock of the data directory. */
  readonly dataDir: string;
  /** Gets one line for each step; never a secret. */
  readonly log?: (message: string) => void;
  /** False: throw if a server already runs on this directory, instead of adopting it. */
  readonly adopt?: boolean;
  /** False: faster, but a crash of the machine may lose data. */
  readonly durable?: boolean;
  /** Aborts the opening. Nothing keeps running then. */
  readonly signal?: AbortSignal;
}

const readyTimeoutMs = 120_000;
const startAttempts = 10;
const retryPauseMs = 300;

/**
 * Opens the Postgres of this data directory. Adopts a running server; otherwise starts one, and creates the cluster if
 * there is none. The server outlives this process unless it is closed. Then the next open adopts it.
 */
export async function openEmbeddedPostgres(input: EmbeddedPostgresInput): Promise<EmbeddedPostgres> {
  const dataDir = resolve(input.dataDir);
  await makeDirectory(dataDir, 0o700);
  const opened = await openOrStop({ ...input, dataDir });
  const { process, port } = opened.postmaster;
  input.log?.(`Postgres ${opened.adopted ? "adopted" : "started"}: process ${process.pid}, port ${port}`);

  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    closing ??= stopPostmaster(process);
    await closing;
  };
  return {
    url: `postgres://${clusterUser}:${opened.cluster.password}@127.0.0.1:${port}/postgres`,
    port,
    pid: process.pid,
    adopted: opened.adopted,
    close,
    [Symbol.asyncDispose]: close,
  };
}

interface OpenedCluster {
  readonly cluster: Cluster;
  readonly postmaster: Postmaster;
  readonly adopted: boolean;
}

async function openOrStop(input: EmbeddedPostgresInput): Promise<OpenedCluster> {
  try {
    return await openCluster(input);
  } catch (error) {
    const cluster = input.signal?.aborted ? await findCluster(input.dataDir) : undefined;
    const running = cluster && (await findPostmaster(cluster.pgdata));
    if (running !== undefined) await stopPostmaster(running);
    throw error;
  }
}

async function openCluster(input: EmbeddedPostgresInput): Promise<OpenedCluster> {
  const { dataDir, log, signal, durable = true } = input;
  const deadlineAt = Date.now() + readyTimeoutMs;
  const existing = await findCluster(dataDir);
  const running = existing && (await adoptPostmaster(existing, input, deadlineAt));
  if (running) return running;

  const binaries = await getPostgresBinaries();
  const launcher = await getLauncher(binaries.postgres);
  if (!existing) log?.(`creating a Postgres cluster in ${dataDir}`);
  const cluster = existing ?? (await initialiseCluster({ dataDir, binaries, launcher, durable, signal }));
  for (let attempt = 1; ; attempt += 1) {
    try {
      const postmaster = await startPostmaster({ cluster, binaries, launcher, durable, deadlineAt, signal });
      return { cluster, postmaster, adopted: false };
    } catch (error) {
      if (!isTransient(error) || attempt === startAttempts) throw error;
      log?.(`Postgres did not start (attempt ${attempt} of ${startAttempts})`);
    }
    await delay(retryPauseMs, undefined, { signal });
    const started = await adoptPostmaster(cluster, input, deadlineAt);
    if (started) return started;
  }
}

async function adoptPostmaster(
  cluster: Cluster,
  { adopt = true, signal }: EmbeddedPostgresInput,
  deadlineAt: number,
): Promise<OpenedCluster | undefined> {
  const running = await findPostmaster(cluster.pgdata);
  if (!running) return undefined;
  if (!adopt) throw new Error(`Postgres already runs on ${cluster.pgdata} (process ${running.pid}): stop it`);
  const postmaster = await waitUntilReady(cluster.pgdata, running, { deadlineAt, signal });
  return postmaster && { cluster, postmaster, adopted: true };
}

/** Another program took the port, another process starts this cluster, or children of a killed postmaster still run. */
function isTransient(error: unknown): boolean {
  return (
    error instanceof PostmasterStartError &&
    /could not create any TCP\/IP sockets|lock file "postmaster\.pid"|shared memory block/.test(error.message)
  );
}
