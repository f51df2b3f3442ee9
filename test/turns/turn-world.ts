import { randomUUID } from "node:crypto";
import { openDatabase, type Database, type RawSql } from "../../db/client.ts";
import { findEngines } from "../../db/engines.ts";
import { EngineConnections } from "../../server/engine-contract/connections.ts";
import { EngineReads } from "../../server/engines/access/engine-reads.ts";
import { FullVolumes } from "../../server/engines/access/full-volumes.ts";
import { EngineHolds } from "../../server/engines/access/engine-holds.ts";
import { LeaseGuard } from "../../server/replicas/lease-guard.ts";
import type { Config } from "../../server/config/config.ts";
import type { Log } from "../../server/log.ts";
import { type Clock, systemClock } from "../../server/time/clock.ts";
import { closeTurns } from "../../server/turns/drain-turns.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { DataKeys } from "../../server/turns/log/data-keys.ts";
import { TurnLog } from "../../server/turns/log/turn-log.ts";
import { TurnSeals } from "../../server/turns/log/turn-seals.ts";
import { TURN_TIMING, type TurnTiming } from "../../server/turns/model/turn-timing.ts";
import type { TurnEnd } from "../../server/turns/model/turn-end.ts";
import { followTurn, type FollowContext } from "../../server/turns/read/follow-turn.ts";
import type { TurnBatch, TurnEvent, TurnGap } from "../../server/turns/read/turn-batch.ts";
import type { RespondContext } from "../../server/turns/respond-to-turn.ts";
import { startTurn, type StartContext, type StartTurnInput } from "../../server/turns/start/start-turn.ts";
import { TurnRegistry } from "../../server/turns/turn-registry.ts";
import { IsoTime } from "../../server/turns/upstream/iso-time.ts";
import { LingeringHolds } from "../../server/turns/upstream/lingering-holds.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { openEngineDouble, type EngineDouble } from "./engine-double.ts";

const noop = () => {};
export const silentLog: Log = { debug: noop, info: noop, warn: noop, error: noop, child: () => silentLog };

const WORLD_MASTER_KEYS = generateMasterKeys();

/** All that the functions for turns use. */
export type WorldContext = StartContext &
  FollowContext &
  RespondContext & {
    config: Pick<Config, "sealTurns">;
    dataKeys: DataKeys;
    fullVolumes: FullVolumes;
  };

/** An engine's row as the reconciler double shows it. The row in the database does not follow it. */
export interface EngineRowDouble {
  engineId: string;
  productId: string;
  userId: string;
  generation: number;
  status: string;
  isCurrent: boolean;
  apiKey: string;
}

export interface WorldOptions {
  /** Instead of the real database's. */
  databaseUrl?: string;
  /** Replaces the database client of the process. */
  wrapRaw?: (raw: RawSql) => RawSql;
  clock?: Clock;
  timing?: Partial<TurnTiming>;
  /** `id:base64,…`. All processes have the same keys by default. */
  masterKeys?: string;
  log?: Log;
  config?: Partial<WorldContext["config"]>;
}

/** A database, an engine double, and any number of replicas over them. */
export interface TurnWorld extends AsyncDisposable {
  readonly database: Database;
  readonly databaseUrl: string;
  /** The url of the superuser. */
  readonly adminUrl: string;
  readonly engine: EngineDouble;
  readonly connections: EngineConnections;
  readonly holds: EngineHolds;
  readonly engines: EngineRowDouble[];
  /** The first process. */
  readonly ctx: WorldContext;
  readonly productId: string;
  addEngine(userId: string, productId?: string): Promise<EngineRowDouble>;
  addProduct(): Promise<string>;
  openProcess(options?: WorldOptions): TurnProcess;
  input(request?: Record<string, unknown>): StartTurnInput;
}

export interface TurnProcess {
  /** Like kill -9: nothing more reaches the database. */
  kill(): Promise<void>;
  readonly ctx: WorldContext;
  readonly replicaId: string;
  readonly database: Database;
  lease: boolean;
}

export async function openTurnWorld(options: WorldOptions = {}): Promise<TurnWorld> {
  const testDatabase = await openTestDatabase();
  const database = openDatabase({ url: testDatabase.url, poolSize: 2, applicationName: "turns-test" });
  const engine = await openEngineDouble();
  const connections = new EngineConnections();
  const holds = new EngineHolds();
  const engines: EngineRowDouble[] = [];
  const processes: TurnProcess[] = [];
  const guards: LeaseGuard[] = [];
  const { url: databaseUrl, adminUrl } = testDatabase;
  const world = { database, databaseUrl, adminUrl, engine, connections, holds, engines };

  const addProduct = async () => {
    const id = randomUUID();
    await database.raw`insert into products (id, slug, name, created_at) values (${id}, ${id}, 'p', now())`;
    return id;
  };
  const addEngine = async (userId: string, productId = firstProduct) => {
    const row = {
      engineId: randomUUID(),
      productId,
      userId,
      generation: 1,
      status: "running",
      isCurrent: true,
      apiKey: `ehe_${randomUUID()}`,
    };
    await database.raw`
      insert into engines (id, product_id, user_id, desired, desired_by, status, spec, spec_hash, volume_name,
        runtime_host, endpoint, incarnation, generation, key_hash, key_sealed, key_prefix, next_check_at, created_at,
        updated_at)
      values (${row.engineId}, ${productId}, ${userId}, 'running', 'caller', 'running', '{}', '', '',
        ${row.engineId}, ${engine.url}, 1, 1, '', ${row.apiKey}, '', now(), now(), now())`;
    engines.push(row);
    return row;
  };
  const openProcess = (own: WorldOptions = {}): TurnProcess => {
    const link = openDatabase({
      url: own.databaseUrl ?? testDatabase.url,
      poolSize: 2,
      applicationName: "turns-test",
    });
    const raw = own.wrapRaw?.(link.raw) ?? link.raw;
    const { clock = systemClock } = own;
    const config = {
      eventMaxBytes: 1024 * 1024,
      turnMaxBytes: 64 * 1024 * 1024,
      turnLogBytesPerHour: 2 ** 31,
      maxLiveTurns: 2_000,
      turnIdleTimeoutMs: 600_000,
      hitlTimeoutMs: 259_200_000,
      turnRetentionMs: 3 * 3_600_000,
      sealTurns: true,
      ...options.config,
      ...own.config,
    };
    const turnTiming = {
      ...TURN_TIMING,
      closeStreamMs: 200,
      brokenMs: 300,
      lingerCheckMs: 50,
      closeMs: 2_000,
      ...options.timing,
      ...own.timing,
    };
    const replica = { id: randomUUID(), holdsLease: () => process.lease };
    const reconciler: WorldContext["reconciler"] = {
      // A boot never ends.
      waitForReconcile: async () => new Promise<never>(() => {}),
      observeNow: async (engineId) => engines.find((one) => one.engineId === engineId),
    };
    const base = {
      raw,
      clock,
      log: own.log ?? silentLog,
      config,
      replica,
      turnTiming,
      reconciler,
      connections,
      holds,
      actor: { kind: "platform_key" as const, id: "key 1", name: "test" },
    };
    const keyring = openKeyring(own.masterKeys ?? WORLD_MASTER_KEYS);
    const dataKeys = new DataKeys({ ...base, keyring });
    const seals = new TurnSeals({ ...base, dataKeys });
    const lease = new LeaseGuard(replica);
    guards.push(lease);
    const ctx: WorldContext = {
      ...base,
      lease,
      engineReads: new EngineReads(async (users) => findEngines(link.db, users)),
      openedKeys: { open: ({ keySealed }) => keySealed },
      fullVolumes: new FullVolumes(),
      turns: new TurnRegistry(base),
      keyring,
      dataKeys,
      seals,
      turnLog: new TurnLog({ ...base, seals }),
      lingeringHolds: new LingeringHolds(base),
      isoTime: new IsoTime(),
    };
    const kill = async () => {
      await link.raw.end({ timeout: 0 });
      turnTiming.closeMs = 1;
      void closeTurns(ctx);
    };
    const process: TurnProcess = { ctx, replicaId: replica.id, database: link, lease: true, kill };
    processes.push(process);
    return process;
  };

  const firstProduct = await addProduct();
  await addEngine("ann");
  const { ctx } = openProcess();
  return {
    ...world,
    ctx,
    productId: firstProduct,
    addEngine,
    addProduct,
    openProcess,
    input: (request = {}) => ({
      productId: firstProduct,
      turnId: randomUUID(),
      userId: "ann",
      request: { message: "hello", taskId: randomUUID(), ...request },
    }),
    [Symbol.asyncDispose]: async () => {
      await engine[Symbol.asyncDispose]();
      await connections[Symbol.asyncDispose]();
      await Promise.all(processes.map((one) => closeTurns(one.ctx)));
      for (const guard of guards) guard[Symbol.dispose]();
      await Promise.all(processes.map((one) => one.database.close()));
      await database.close();
      await testDatabase.close();
    },
  };
}

export interface Read {
  batches: TurnBatch[];
  events: TurnEvent[];
  gaps: TurnGap[];
  end: TurnEnd | undefined;
}

/** Reads to the end, or until `stop` returns true. */
export async function readAll(
  ctx: FollowContext,
  key: { productId: string; turnId: string },
  options: { afterSeq?: number; signal?: AbortSignal; stop?: (read: Read) => boolean } = {},
): Promise<Read> {
  const read: Read = { batches: [], events: [], gaps: [], end: undefined };
  const { afterSeq = 0, signal = AbortSignal.timeout(60_000) } = options;
  for await (const batch of followTurn(ctx, { ...key, afterSeq, signal })) {
    read.batches.push(batch);
    read.events.push(...batch.events.map((line) => JSON.parse(line) as TurnEvent));
    if (batch.gap) read.gaps.push(batch.gap);
    read.end = batch.end;
    if (options.stop?.(read)) break;
  }
  return read;
}

export async function startAndRead(world: TurnWorld, input = world.input()): Promise<Read> {
  await startTurn(world.ctx, input);
  return readAll(world.ctx, input);
}

export const seqsOf = (read: Read) => read.events.map((event) => event.seq);
