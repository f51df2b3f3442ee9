import { randomUUID } from "node:crypto";
import { openDatabase } from "../../db/client.ts";
import { callHolder } from "../../server/engines/access/hold-view.ts";
import { systemClock, type Clock } from "../../server/time/clock.ts";
import type { Config } from "../../server/config/config.ts";
import type { CallContext } from "../../server/context.ts";
import { composeDomain, type AppContext } from "../../server/compose.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { Metrics } from "../../server/metrics.ts";
import { openLog } from "../../server/log.ts";
import { registerReplica } from "../../server/replicas/replica.ts";
import { NO_RECORD, type IdempotencyRecord } from "../../server/idempotency/idempotency-record.ts";
import { MemoryDaemon } from "../support/memory-daemon.ts";
import { openMemoryRuntime, type MemoryRuntime } from "../support/memory-runtime.ts";
import { insertTestProduct } from "../support/insert-product.ts";
import { takePortRange } from "../support/ports.ts";
import { openTestDatabase, type TestDatabase } from "../support/test-database.ts";
import { testConfig } from "./test-config.ts";

/** One installation: a database and a daemon. They outlive the orchestrators that are opened on them. */
export interface Site extends AsyncDisposable {
  database: TestDatabase;
  daemon: MemoryDaemon;
  masterKeys: string;
  productId: string;
  config: Config;
}

/** One replica's domain on a site, without API and loops. */
export interface House extends AsyncDisposable {
  ctx: AppContext & CallContext;
  runtime: MemoryRuntime;
  productId: string;
}

/** More than the engines of most tests. */
const SITE_PORTS = 100;

export async function openSite(
  options: { config?: Partial<Config>; daemon?: MemoryDaemon; ports?: number } = {},
): Promise<Site> {
  const database = await openTestDatabase();
  const daemon = options.daemon ?? new MemoryDaemon();
  const client = openDatabase({ url: database.url, poolSize: 1, applicationName: "site" });
  const productId = randomUUID();
  const masterKeys = generateMasterKeys();
  const { min: portMin, max: portMax } = takePortRange(options.ports ?? SITE_PORTS);
  await insertTestProduct(client.db, masterKeys, { id: productId, slug: "acme", name: "Acme", policy: {} });
  await client.close();
  return {
    database,
    daemon,
    productId,
    masterKeys,
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
  const stack = new AsyncDisposableStack();
  stack.defer(() => database.close());
  const parts = {
    config: { ...config, masterKeys: site.masterKeys },
    log,
    clock: options.clock ?? systemClock,
    metrics: new Metrics(),
    database,
    instanceId: "test-instance",
    runtime,
    replica,
    keyring: openKeyring(site.masterKeys),
  };
  const ctx: AppContext & CallContext = {
    ...composeDomain(parts, stack),
    actor: { kind: "platform_key", id: randomUUID(), name: "test" },
    requestId: "test-request",
  };
  return {
    ctx,
    runtime,
    productId: site.productId,
    [Symbol.asyncDispose]: async () => stack.disposeAsync(),
  };
}

/** The inputs that most operations share. */
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
    holder: callHolder("test"),
  };
}
