import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type Docker from "dockerode";
import { openDatabase } from "../../db/client.ts";
import { composeDomain, type AppContext } from "../../server/compose.ts";
import type { CallContext } from "../../server/context.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import type { Log } from "../../server/log.ts";
import { startLoops } from "../../server/loops/start-loops.ts";
import { Metrics } from "../../server/metrics.ts";
import { registerReplica } from "../../server/replicas/replica.ts";
import { toMarkerName } from "../../server/runtime/docker/labels.ts";
import { openDockerRuntime } from "../../server/runtime/docker/runtime.ts";
import type { EngineRuntime } from "../../server/runtime/engine-runtime.ts";
import { systemClock } from "../../server/time/clock.ts";
import { takePortRange } from "../support/ports.ts";
import { openDockerSubject } from "../support/runtime-docker-subject.ts";
import { quietLog } from "../support/runtime-harness.ts";
import { DAEMON_SOCKET, openSocketProxy, type SocketProxy } from "../support/runtime-socket-proxy.ts";
import { insertTestProduct } from "../support/insert-product.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { testConfig } from "./test-config.ts";

/** One replica's domain and its loops over a real daemon, with a proxy in between. */
export interface DockerHouse extends AsyncDisposable {
  ctx: AppContext & CallContext;
  productId: string;
  /** The daemon itself, without the proxy. */
  docker: Docker;
  /** The fixture engine's image. */
  image: string;
  network: string;
  markerName: string;
  proxy: SocketProxy;
  /** While the daemon is down, nothing listens at the proxy's address. */
  takeDown(): Promise<void>;
  bringBack(): Promise<void>;
  /** The warnings in the log. */
  readonly warnings: { fields: object; message: string }[];
  /** Closes the domain, and opens another one over the same database. */
  reopen(): Promise<void>;
}

const HOUSE_PORTS = 40;
const CALL_TIMEOUT_MS = 20_000;

export async function openDockerHouse(): Promise<DockerHouse> {
  await using stack = new AsyncDisposableStack();
  const subject = await openDockerSubject();
  stack.defer(() => subject.close());
  const { docker, tag } = subject.fixture;
  const instanceId = `house-${randomUUID()}`;
  const direct = await subject.open(instanceId);
  stack.defer(async () => {
    await direct.removeInstance();
    await direct[Symbol.asyncDispose]();
  });
  const path = join(subject.catalogPath, "docker.sock");
  const open = async () => openSocketProxy(path, DAEMON_SOCKET ?? "");
  let proxy = await open();
  stack.defer(async () => proxy[Symbol.asyncDispose]());

  const database = await openTestDatabase();
  stack.defer(() => database.close());
  const { min: portMin, max: portMax } = takePortRange(HOUSE_PORTS);
  const masterKeys = generateMasterKeys();
  const config = testConfig({
    engineImage: tag,
    engineNetwork: subject.network,
    catalogPath: subject.catalogPath,
    portMin,
    portMax,
    healthIntervalMs: 1_000,
    masterKeys,
    limits: { memoryMb: 96, cpus: 1, pids: 64, readOnly: false, capAdd: [], user: null },
  });
  const productId = randomUUID();
  const warnings: DockerHouse["warnings"] = [];
  const log: Log = {
    debug: () => {},
    info: () => {},
    error: () => {},
    warn: (fields, message) => void warnings.push({ fields, message }),
    child: () => log,
  };
  let isMarked = false;

  const openDomain = async () => {
    await using opening = new AsyncDisposableStack();
    const client = openDatabase({ url: database.url, poolSize: 4, applicationName: "house" });
    opening.defer(() => client.close());
    const dockerHost = `unix://${path}`;
    const runtime = opening.use(await openThroughProxy({ dockerHost, instanceId, marked: isMarked }, direct));
    const replica = await registerReplica(
      { db: client.db, config },
      { db: client.db, runtimeHost: runtime.host },
    );
    opening.defer(() => replica.deregister());
    const base = { config, log, clock: systemClock, metrics: new Metrics(), database: client, replica };
    const keyring = openKeyring(masterKeys);
    const domain = composeDomain({ ...base, instanceId, runtime, keyring }, opening);
    for (const loop of startLoops(domain)) opening.use(loop);
    const actor = { kind: "operator", id: randomUUID(), name: "olga" } as const;
    return { ctx: { ...domain, actor, requestId: "test-request" }, stack: opening.move() };
  };
  const first = openDatabase({ url: database.url, poolSize: 1, applicationName: "site" });
  await insertTestProduct(first.db, masterKeys, { id: productId, slug: "acme", name: "Acme", policy: {} });
  await first.close();
  let domain = await openDomain();
  await domain.ctx.runtime.markInstance();
  isMarked = true;
  stack.defer(async () => domain.stack.disposeAsync());
  const opened = stack.move();
  return {
    get ctx() {
      return domain.ctx;
    },
    get proxy() {
      return proxy;
    },
    productId,
    docker,
    image: tag,
    network: subject.network,
    markerName: toMarkerName(instanceId),
    takeDown: async () => proxy[Symbol.asyncDispose](),
    bringBack: async () => {
      proxy = await open();
    },
    warnings,
    reopen: async () => {
      await domain.stack.disposeAsync();
      domain = await openDomain();
    },
    [Symbol.asyncDispose]: async () => opened.disposeAsync(),
  };
}

async function openThroughProxy(
  given: { dockerHost: string; instanceId: string; marked: boolean },
  direct: EngineRuntime,
): Promise<EngineRuntime> {
  // The recorded host lets the runtime open while the daemon is down.
  return openDockerRuntime({ ...given, host: direct.host, log: quietLog, callTimeoutMs: CALL_TIMEOUT_MS });
}
