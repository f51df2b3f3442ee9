import { randomUUIDv7 } from "node:crypto";
import { chmod, mkdir } from "node:fs/promises";
import { lockDataDir } from "../db/data-dir-lock.ts";
import { markAllDue } from "../db/engines.ts";
import { ensureInstance } from "../db/instance.ts";
import { openHttpServer } from "./api/http/http-server.ts";
import { systemClock } from "./time/clock.ts";
import { composeDomain, type AppContext } from "./compose.ts";
import type { Config } from "./config/config.ts";
import type { BaseContext } from "./context.ts";
import { withDefaultImage } from "./boot/default-image.ts";
import { ensureDevSecrets, toSecretsPath } from "./boot/dev-secrets.ts";
import { hashKey } from "./keys/key-format.ts";
import type { Log } from "./log.ts";
import { startHeartbeatLoop } from "./loops/heartbeat-loop.ts";
import { startLoops } from "./loops/start-loops.ts";
import { openMigratedDatabase } from "./boot/open-database.ts";
import { openRuntime, settleRuntime } from "./boot/open-runtime.ts";
import type { HeldReplica } from "./replicas/replica.ts";
import { registerSoleReplica } from "./replicas/sole-replica.ts";
import type { EngineRuntime } from "./runtime/engine-runtime.ts";
import { drainTurns } from "./turns/drain-turns.ts";
import { ensureTurnPartitions } from "./turns/log/ensure-turn-partitions.ts";
import { recoverTurns } from "./turns/log/recover-turns.ts";

export interface App {
  readonly url: string;
  readonly ctx: AppContext;
  /** The bootstrap operator's generated key until a start has shown it. */
  readonly newAdminKey: string | undefined;
  /** Where the keys are that a development start made for itself. */
  readonly secretsPath: string | undefined;
  /**
   * Not ready at once, no new turns, drains until `hurry` aborts at the latest, and closes everything in reverse
   * order. Safe to call twice.
   */
  close(hurry?: AbortSignal): Promise<void>;
}

export interface OpenAppInput {
  config: Config;
  log: Log;
  /** Called when the process must go by itself: others have declared it dead. */
  onFatal(why: string): void;
  /** Gives the start up. */
  signal: AbortSignal;
}

const DECLARED_DEAD = "declared dead by another replica";

/** Composes the service and serves. What was opened when it throws is closed again. */
export async function openApp(input: OpenAppInput): Promise<App> {
  await using stack = new AsyncDisposableStack();
  const { config: given, ...secrets } = await withSecrets(input.config, stack);
  await ensureCatalog(given.catalogPath);
  const database = await openMigratedDatabase({ config: given, log: input.log }, stack);
  const instance = await ensureInstance(database.db, randomUUIDv7());
  const place = { db: database.db, config: given, log: input.log, instance };
  const runtime = stack.use(await openRuntime(place));
  const replica = await openReplica({ ...database, config: given, input }, runtime, stack);
  await settleRuntime(place, runtime);
  const config = await withDefaultImage(given, { runtime, log: input.log, signal: input.signal });
  const parts = {
    config,
    log: input.log,
    clock: systemClock,
    database,
    instanceId: instance.id,
    runtime,
    replica,
  };
  const ctx = composeDomain(parts, stack);

  await ensureTurnPartitions(ctx);
  // What the start waited for may have taken longer than others wait for a beat.
  await replica.beat();
  if (replica.declaredDead) throw new Error(DECLARED_DEAD);
  input.signal.throwIfAborted();
  await recoverTurns(ctx, "all but me");
  await markAllDue(ctx.db, runtime.host);
  for (const loop of startLoops(ctx)) stack.use(loop);
  const server = await openHttpServer(ctx, { host: config.host, port: config.port });
  stack.defer(() => server.close());

  const opened = stack.move();
  let closing: Promise<void> | undefined;
  const close = async (hurry?: AbortSignal) => {
    closing ??= drainAndClose(ctx, opened, hurry);
    return closing;
  };
  return { url: server.url, ctx, ...secrets, close };
}

/** Readers see their turns to the end, an interrupted one too; whoever still reads then resumes at the next process. */
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
      // In a hurry.
    });
    await drainTurns(ctx, drainMs, hurry);
    ctx.turns.handOver();
  } finally {
    await opened.disposeAsync();
  }
  ctx.log.info({}, "closed; engines go on without us, and the next start finds them");
}

/** Engines run as users of their own, and have to be able to read it whatever our umask is. */
async function ensureCatalog(path: string): Promise<void> {
  const made = await mkdir(path, { recursive: true });
  if (made !== undefined) await chmod(path, 0o755);
}

/** Locks the data directory where it is used, and fills in the keys that a development start was not given. */
async function withSecrets(
  config: Config,
  stack: AsyncDisposableStack,
): Promise<Pick<App, "newAdminKey" | "secretsPath"> & { config: Config }> {
  const none = { config, newAdminKey: undefined, secretsPath: undefined };
  if (config.production) return none;
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  stack.use(await lockDataDir(config.dataDir));
  if (config.masterKeys !== undefined && config.adminKeyHash !== undefined) return none;
  const secrets = await ensureDevSecrets(config.dataDir);
  const showKey = !secrets.isShown && config.adminKeyHash === undefined;
  return {
    config: {
      ...config,
      masterKeys: config.masterKeys ?? secrets.masterKeys,
      adminKeyHash: config.adminKeyHash ?? hashKey(secrets.adminKey),
    },
    newAdminKey: showKey ? secrets.adminKey : undefined,
    secretsPath: toSecretsPath(config.dataDir),
  };
}

async function openReplica(
  ctx: Pick<BaseContext, "db" | "raw" | "config"> & { input: OpenAppInput },
  runtime: EngineRuntime,
  stack: AsyncDisposableStack,
): Promise<HeldReplica> {
  const { log, signal } = ctx.input;
  const place = { ...ctx, log, clock: systemClock, runtimeHost: runtime.host };
  const replica = await registerSoleReplica(place, signal);
  stack.defer(() => replica.leave());
  const onDeclaredDead = () => ctx.input.onFatal(DECLARED_DEAD);
  stack.use(startHeartbeatLoop({ ...place, replica }, { onDeclaredDead }));
  return replica;
}
