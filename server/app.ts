import { randomUUIDv7 } from "node:crypto";
import { chmod } from "node:fs/promises";
import type { Database } from "../db/client.ts";
import { makeDirectory } from "../db/make-directory.ts";
import { lockDataDir } from "../db/data-dir-lock.ts";
import { markAllDue } from "../db/engines.ts";
import { ensureInstance } from "../db/instance.ts";
import { openHttpServer } from "./api/http/http-server.ts";
import { abortable } from "./time/abortable.ts";
import { systemClock } from "./time/clock.ts";
import { composeDomain, type AppContext, type DomainParts } from "./compose.ts";
import type { Config } from "./config/config.ts";
import type { BaseContext } from "./context.ts";
import { openDataDir, type DataDir } from "./boot/data-dir.ts";
import { withDefaultImage } from "./boot/default-image.ts";
import { ensureDevSecrets, toSecretsPath } from "./boot/dev-secrets.ts";
import { toErrorMessage } from "./errors.ts";
import { hashKey } from "./keys/key-format.ts";
import { openKeyring } from "./keys/keyring.ts";
import { checkMasterKeys } from "./master-keys/check-master-keys.ts";
import type { Log } from "./log.ts";
import type { LogOutput } from "./log-output.ts";
import { Metrics } from "./metrics.ts";
import { startDeadReplicasLoop, startHeartbeatLoop } from "./loops/heartbeat-loop.ts";
import { startLoops } from "./loops/start-loops.ts";
import { openMigratedDatabase } from "./boot/open-database.ts";
import { bindRuntime, openRuntime } from "./boot/open-runtime.ts";
import { startNetworkProbe } from "./boot/start-network-probe.ts";
import { registerSoleReplica } from "./replicas/register-sole-replica.ts";
import { Heartbeat } from "./replicas/heartbeat.ts";
import type { OwnReplica } from "./replicas/replica.ts";
import { drainTurns } from "./turns/drain-turns.ts";
import { ensureTurnPartitions } from "../db/turn-partitions.ts";
import { takeOverTurns } from "./turns/take-over/take-over-turns.ts";

export interface App {
  readonly url: string;
  readonly ctx: AppContext;
  /** The generated key of the bootstrap operator. undefined: configured, or shown by an earlier start. */
  readonly newAdminKey: string | undefined;
  /** The file with the keys that a development start has generated. */
  readonly secretsPath: string | undefined;
  /**
   * Stops being ready and refuses new turns at once. Drains, at the longest until `hurry` aborts. Then closes
   * everything in reverse order. A second call waits for the first.
   */
  close(hurry?: AbortSignal): Promise<void>;
}

export interface OpenAppInput {
  config: Config;
  log: Log;
  /** The output of the log, whose failure shows in the readiness. */
  output?: LogOutput;
  /** Called when the process must exit because another replica has declared it dead. */
  onFatal(why: string): void;
  /** Aborts the start. */
  signal: AbortSignal;
}

const DECLARED_DEAD = "declared dead by another replica";

/** Starts the service. If a step throws or the signal aborts, everything that was opened is closed again. */
export async function openApp(input: OpenAppInput): Promise<App> {
  await using stack = new AsyncDisposableStack();
  const { signal } = input;
  const { config, dataDir, ...secrets } = await withSecrets(input, stack);
  const { heartbeat, ...parts } = await openParts({ ...input, config }, stack);
  const ctx = composeDomain({ ...parts, dataDir }, stack);
  await abortable(takeOverWork(ctx, parts.replica, signal), signal);
  stack.use(startDeadReplicasLoop(ctx, heartbeat));
  for (const loop of startLoops(ctx)) stack.use(loop);
  const server = await openHttpServer(ctx, { host: config.host, port: config.port });
  stack.defer(() => server.close());

  // In development, engines are the developer's own.
  if (config.production) stack.use(startNetworkProbe(ctx));

  const opened = stack.move();
  let closing: Promise<void> | undefined;
  const close = async (hurry?: AbortSignal) => (closing ??= drainAndClose(ctx, opened, hurry));
  return { url: server.url, ctx, ...secrets, close };
}

/** Locks the data directory if it is used, and generates the keys that a development start was not given. */
async function withSecrets(
  { config, signal }: Pick<OpenAppInput, "config" | "signal">,
  stack: AsyncDisposableStack,
): Promise<Pick<App, "newAdminKey" | "secretsPath"> & { config: Config; dataDir: DataDir | undefined }> {
  const none = { config, newAdminKey: undefined, secretsPath: undefined };
  if (config.production) return { ...none, dataDir: undefined };
  const holdsDatabase = config.databaseUrl === undefined;
  const dataDir = await abortable(openDataDir(config.dataDir, { holdsDatabase }), signal);
  stack.use(await abortable(lockDataDir(config.dataDir), signal));
  if (config.masterKeys !== undefined && config.adminKeyHash !== undefined) return { ...none, dataDir };
  const secrets = await ensureDevSecrets(config.dataDir);
  const showKey = !secrets.isShown && config.adminKeyHash === undefined;
  return {
    config: {
      ...config,
      masterKeys: config.masterKeys ?? secrets.masterKeys,
      adminKeyHash: config.adminKeyHash ?? hashKey(secrets.adminKey),
    },
    dataDir,
    newAdminKey: showKey ? secrets.adminKey : undefined,
    secretsPath: toSecretsPath(config.dataDir),
  };
}

/**
 * Opens the database, the runtime and the replica. `openRuntime` writes nothing; only the sole replica may bind this
 * database to the runtime, which `bindRuntime` does.
 */
async function openParts(
  input: OpenAppInput,
  stack: AsyncDisposableStack,
): Promise<DomainParts & { replica: OwnReplica; heartbeat: Heartbeat }> {
  const { config, log, signal } = input;
  await abortable(ensureCatalog(config.catalogPath), signal);
  const database = await openMigratedDatabase({ config, log, signal }, stack);
  const instance = await abortable(ensureInstance(database.db, randomUUIDv7()), signal);
  const keyring = openKeyring(config.masterKeys ?? "");
  const adoptsRows = config.databaseUrl === undefined;
  const keysInput = { db: database.db, keyring, log, instanceId: instance.id, adoptsRows };
  await abortable(checkMasterKeys(keysInput), signal);
  const runtimeInput = { db: database.db, config, log, instance };
  const runtime = stack.use(await abortable(openRuntime(runtimeInput), signal));
  const base = { log, output: input.output, metrics: new Metrics(), clock: systemClock };
  input.output?.onRecovered((lines) => base.metrics.logLinesDropped(lines));
  const heartbeat = await openReplica({ ...database, ...input, ...base }, runtime.host, stack);
  await abortable(bindRuntime(runtimeInput, runtime), signal);
  return {
    ...base,
    config: await withDefaultImage(config, { runtime, log, signal }),
    database,
    instanceId: instance.id,
    runtime,
    keyring,
    heartbeat,
    replica: heartbeat.replica,
  };
}

/** Engines run as other users, and must be able to read the directory whatever our umask is. */
async function ensureCatalog(path: string): Promise<void> {
  try {
    if (await makeDirectory(path)) await chmod(path, 0o755);
  } catch (error) {
    const problem = `the catalog directory ${path} cannot be made (${toErrorMessage(error)})`;
    throw new Error(`${problem}: set ORCH_CATALOG_MOUNT_PATH to a directory`, { cause: error });
  }
}

async function openReplica(
  ctx: BaseContext & Pick<Database, "heartbeat"> & Pick<OpenAppInput, "signal" | "onFatal">,
  runtimeHost: string,
  stack: AsyncDisposableStack,
): Promise<Heartbeat> {
  const replica = await registerSoleReplica({ ...ctx, runtimeHost }, ctx.signal);
  stack.defer(() => replica.deregister());
  const heartbeat = new Heartbeat({ ...ctx, db: ctx.heartbeat }, replica);
  stack.use(startHeartbeatLoop(ctx, heartbeat, () => ctx.onFatal(DECLARED_DEAD)));
  return heartbeat;
}

/** Takes the turns of earlier replicas over, and makes every engine due for a reconcile. */
async function takeOverWork(ctx: AppContext, replica: OwnReplica, signal: AbortSignal): Promise<void> {
  await ensureTurnPartitions(ctx.raw);
  // The steps before this one may have taken longer than a lease.
  await replica.sendHeartbeat();
  if (replica.isDeclaredDead) throw new Error(DECLARED_DEAD);
  signal.throwIfAborted();
  await takeOverTurns(ctx, "all but me");
  await markAllDue(ctx.db, ctx.runtime.host);
}

/** Readers see their turns to the end, or to the interruption. The remaining readers are handed over. */
async function drainAndClose(
  ctx: AppContext,
  opened: AsyncDisposableStack,
  hurry: AbortSignal | undefined,
): Promise<void> {
  ctx.drain.begin();
  ctx.turns.refuseNew();
  const { drainDelayMs, drainMs } = ctx.config;
  ctx.log.info({ drainDelayMs, drainMs, turns: ctx.turns.size }, "draining");
  try {
    await ctx.clock.sleep(drainDelayMs, hurry).catch(() => {
      // `hurry` has aborted: skip the delay.
    });
    await drainTurns(ctx, drainMs, hurry);
    ctx.turns.handOver();
  } finally {
    await opened.disposeAsync();
  }
  ctx.log.info({}, "closed; engines keep running, and the next start reconciles them");
}
