import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { open, readFile, rename, stat } from "node:fs/promises";
import { createServer } from "node:net";
import type { PostgresBinaries } from "./binaries.ts";
import type { Cluster } from "./cluster.ts";
import { giveTree, postgresEnvironment, toCommand, type Launcher } from "./launcher.ts";
import { disownStalePidFile, stopPostmaster, waitUntilReady, type Postmaster } from "./postmaster.ts";
import { findProcess } from "../process-identity.ts";

interface StartInput {
  readonly cluster: Cluster;
  readonly binaries: PostgresBinaries;
  readonly launcher: Launcher;
  readonly durable: boolean;
  readonly deadlineAt: number;
  readonly signal?: AbortSignal | undefined;
}

const maxLogBytes = 5 * 1024 * 1024;

/** The postmaster ended before it accepted connections. */
export class PostmasterStartError extends Error {
  override readonly name = "PostmasterStartError";
}

/** Starts a postmaster on a free loopback port. It has a session of its own and writes to the log of the cluster. */
export async function startPostmaster(input: StartInput): Promise<Postmaster> {
  const { cluster, launcher } = input;
  await giveTree(launcher, cluster.dir);
  await disownStalePidFile(cluster.pgdata);
  await rotateLog(cluster.logFile);
  const logOffset = (await stat(cluster.logFile).catch(() => undefined))?.size ?? 0;
  const child = await spawnPostmaster(input);
  const identity = await findProcess(child.pid ?? 0);
  try {
    const ready = identity && (await waitUntilReady(cluster.pgdata, identity, input));
    if (ready !== undefined) return ready;
  } catch (error) {
    child.kill("SIGQUIT");
    if (input.signal?.aborted && identity) await stopPostmaster(identity);
    throw error;
  }
  const output = (await readFile(cluster.logFile)).subarray(logOffset).toString().trim();
  throw new PostmasterStartError(`Postgres did not start: ${output.slice(-2000) || "no output"}`);
}

async function spawnPostmaster(input: StartInput): Promise<ChildProcess> {
  const { cluster, binaries, launcher } = input;
  const port = await pickFreePort();
  const settings = toSettings(input).flatMap((setting) => ["-c", setting]);
  const options = ["-D", cluster.pgdata, "-p", `${port}`, ...settings];
  const [command, args] = toCommand(launcher, binaries.postgres, options);
  const log = await open(cluster.logFile, "a", 0o600);
  try {
    const child = spawn(command, args, {
      cwd: cluster.pgdata,
      env: postgresEnvironment,
      stdio: ["ignore", log.fd, log.fd],
      // In our session, Ctrl-C in the terminal would stop the database before we have finished with it.
      detached: true,
    });
    await once(child, "spawn");
    child.unref();
    return child;
  } finally {
    await log.close();
  }
}

function toSettings({ durable }: StartInput): string[] {
  const settings = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=64MB",
    // With mmap, a kill -9 leaves shared memory in the data directory instead of /dev/shm.
    "dynamic_shared_memory_type=mmap",
    // Nothing replicates from this server, and the write-ahead log is 20 % smaller.
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=256MB",
    "io_method=sync",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_checkpoints=off",
    "log_line_prefix=%m [%p] %q%a ",
  ];
  return durable ? settings : [...settings, "fsync=off", "full_page_writes=off"];
}

async function pickFreePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string")
    throw new Error("the probe for a free port has no port");
  return address.port;
}

async function rotateLog(logFile: string): Promise<void> {
  const size = (await stat(logFile).catch(() => undefined))?.size ?? 0;
  if (size > maxLogBytes) await rename(logFile, `${logFile}.1`);
}
