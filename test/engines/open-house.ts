import { randomUUID } from "node:crypto";
import { openDatabase } from "../../db/client.ts";
import { insertProduct } from "../../db/products.ts";
import { systemClock, type Clock } from "../../server/time/clock.ts";
import type { Config } from "../../server/config/config.ts";
import type { AppContext, CallContext } from "../../server/context.ts";
import { DrainState } from "../../server/replicas/drain-state.ts";
import { Reconciler } from "../../server/engines/reconcile/reconciler.ts";
import { EngineHolds } from "../../server/engines/access/engine-holds.ts";
import { TakenPorts } from "../../server/engines/reconcile/taken-ports.ts";
import { acquireEngine } from "../../server/engines/access/acquire-engine.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { LeaseGuard } from "../../server/replicas/lease-guard.ts";
import { openLog } from "../../server/log.ts";
import { registerReplica } from "../../server/replicas/replica.ts";
import { TurnRegistry } from "../../server/turns/turn-registry.ts";
import { NO_RECORD, type IdempotencyRecord } from "../../server/idempotency/idempotency-record.ts";
import { MemoryDaemon } from "../support/memory-daemon.ts";
import { openMemoryRuntime, type MemoryRuntime } from "../support/memory-runtime.ts";
import { takePortRange } from "../support/ports.ts";
import { openTestDatabase, type TestDatabase } from "../support/test-database.ts";
import { testConfig } from "./test-config.ts";

/** One installation: a database and a daemon, which outlive any orchestrator that is opened on them. */
export interface Site extends AsyncDisposable {
  database: TestDatabase;
  daemon: MemoryDaemon;
  masterKeys: string;
  productId: string;
  config: Config;
}

/** An orchestrator's domain over a site, without API and loops. */
export interface House extends AsyncDisposable {
  ctx: AppContext & CallContext;
  runtime: MemoryRuntime;
  productId: string;
}

/** More than any test has engines. */
const SITE_PORTS = 100;

export async function openSite(
  options: { config?: Partial<Config>; daemon?: MemoryDaemon; ports?: number } = {},
): Promise<Site> {
  const database = await openTestDatabase();
  const daemon = options.daemon ?? new MemoryDaemon();
  const client = openDatabase({ url: database.url, poolSize: 1, applicationName: "site" });
  const productId = randomUUID();
  const { min: portMin, max: portMax } = takePortRange(options.ports ?? SITE_PORTS);
  await insertProduct(client.db, { id: productId, slug: "acme", name: "Acme", policy: {} });
  await client.close();
  return {
    database,
    daemon,
    productId,
    masterKeys: generateMasterKeys(),
    config: testConfig({ portMin, portMax, ...options.config }),
    [Symbol.asyncDispose]: async () => {
      await daemon[Symbol.asyncDispose]();
      await database.close();
    },
  };
}

export async function openHouse(site: Site, options: { clock?: Clock } = {}): Promise<House> {
  const { config } = site;
  const database = openDatabase({ url: site.database.url, poolSize: 4, applicationName: "house" });
  const runtime = openMemoryRuntime({ daemon: site.daemon });
  const log = openLog({ level: "silent", pretty: false });
  const replica = await registerReplica(
    { db: database.db, config },
    { db: database.db, runtimeHost: runtime.host },
  );
  const base = {
    config,
    log,
    runtime,
    replica,
    db: database.db,
    raw: database.raw,
    clock: options.clock ?? systemClock,
    keyring: openKeyring(site.masterKeys),
  };
  const takenPorts = new TakenPorts(systemClock);
  const lease = new LeaseGuard(replica);
  const holds = new EngineHolds();
  const reconciler = new Reconciler({ ...base, takenPorts });
  const turns = new TurnRegistry({
    ...base,
    acquireEngine: (input) => acquireEngine({ ...base, holds, reconciler }, input),
    refreshEngine: (engineId) => reconciler.refresh(engineId),
  });
  const ctx: AppContext & CallContext = {
    ...base,
    instanceId: "test-instance",
    lease,
    takenPorts,
    holds,
    reconciler,
    turns,
    drain: new DrainState(),
    actor: { kind: "platform_key", id: randomUUID(), name: "test" },
    requestId: "test-request",
  };
  return {
    ctx,
    runtime,
    productId: site.productId,
    [Symbol.asyncDispose]: async () => {
      lease[Symbol.dispose]();
      await turns[Symbol.asyncDispose]();
      await reconciler.close();
      await database.close();
    },
  };
}

/** Inputs that most verbs share. */
export function toCall(
  house: Pick<House, "productId">,
  userId: string,
  idempotency: IdempotencyRecord = NO_RECORD,
) {
  return {
    productId: house.productId,
    policy: {},
    userId,
    wait: true,
    whenBusy: "wait" as const,
    graceSeconds: 1,
    deadlineMs: 20_000,
    idempotency,
  };
}
