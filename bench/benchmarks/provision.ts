import { spawn } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { findPortRange } from "../../demo/port-range.ts";
import { openDockerClient, type DockerClient } from "../../server/runtime/docker/client.ts";
import { toCreateOptions } from "../../server/runtime/docker/create-options.ts";
import { isDockerReachable } from "../../server/runtime/docker/reachable.ts";
import { openDockerRuntime } from "../../server/runtime/docker/runtime.ts";
import { buildReferenceImage } from "../../server/runtime/docker/reference-image.ts";
import type { BenchContext, Benchmark } from "../benchmark.ts";
import { toUsed } from "../cpu-meter.ts";
import { toCpuPer, toMeasure, type Measure } from "../measure.ts";
import { alternate } from "../rounds.ts";
import { openService, type Product, type Service } from "../service.ts";
import { USER } from "../user.ts";

const ROUNDS = 15;
const POLL_MS = 2;
const BOOT_TIMEOUT_MS = 60_000;
const CALL_TIMEOUT_MS = 60_000;
const REFERENCE_ENGINE = fileURLToPath(new URL("../../engine/main.ts", import.meta.url));
const SILENT = { info: () => undefined, warn: () => undefined };
const KEY_HASH = createHash("sha256").update("bench").digest("hex");

export const provision: Benchmark = {
  name: "provision",
  run: async (ctx) => {
    const measures = [await measureProcess(ctx)];
    const dockerHost = process.env["DOCKER_HOST"];
    if (await isDockerReachable(dockerHost)) measures.push(await measureDocker(ctx, dockerHost));
    else ctx.log("no Docker daemon answers: containers are not measured");
    return measures;
  },
};

async function measureProcess(ctx: BenchContext): Promise<Measure> {
  await using service = await openService(ctx, { engine: "reference" });
  return await compare(ctx, service, {
    name: "process",
    against: "raw spawn, first healthy",
    raw: () => spawnRaw(service),
  });
}

interface Comparison {
  name: string;
  against: string;
  /** Returns the milliseconds until the first healthy answer, and removes what it made. */
  raw: () => Promise<number>;
}

async function compare(
  ctx: BenchContext,
  service: Service,
  { name, against, raw }: Comparison,
): Promise<Measure> {
  const product = await service.openProduct();
  const sides = {
    // Runs first, because it makes the network and the folders, which stay.
    ours: async () => {
      const from = await service.readCpu();
      const tookMs = await provisionOnce(product);
      const cpu = toUsed(from, await service.readCpu());
      await product.client.api.engines.destroy.mutate({ userId: USER });
      return { tookMs, cpu };
    },
    raw,
  };
  await alternate(sides, 2);
  ctx.log(`${name}: ${ROUNDS} rounds`);
  const results = await alternate(sides, ROUNDS);
  return toMeasure({
    measure: `provision, added, p50 (${name})`,
    unit: "ms",
    ours: results.ours.map(({ tookMs }) => tookMs),
    baseline: results.raw,
    against,
    bound: { kind: "added_at_most", amount: 60 },
    cpu: toCpuPer(
      "provision",
      1,
      results.ours.map(({ cpu }) => cpu),
    ),
  });
}

async function provisionOnce({ client }: Product): Promise<number> {
  const begin = performance.now();
  const { engine } = await client.api.engines.provision.mutate({ userId: USER });
  const tookMs = performance.now() - begin;
  if (engine.status !== "running") throw new Error(`the engine is ${engine.status}`);
  return tookMs;
}

async function spawnRaw(service: Service): Promise<number> {
  const { min: port } = await findPortRange();
  const dir = join(service.dataDir, `raw-${randomUUID()}`);
  await mkdir(dir);
  const begin = performance.now();
  const child = spawn(process.execPath, [REFERENCE_ENGINE], {
    stdio: "ignore",
    env: {
      PATH: process.env["PATH"],
      HOME: dir,
      TMPDIR: dir,
      ENGINE_KEY_HASH: KEY_HASH,
      SQLITE_DB_PATH: join(dir, "brain.sqlite"),
      CATALOG_DIR: join(service.dataDir, "catalog"),
      ENGINE_HOST: "127.0.0.1",
      ENGINE_PORT: String(port),
    },
  });
  try {
    await untilHealthy(port, begin);
    return performance.now() - begin;
  } finally {
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    await exited;
    await rm(dir, { recursive: true, force: true });
  }
}

async function untilHealthy(port: number, begin: number): Promise<void> {
  for (;;) {
    const response = await fetch(`http://127.0.0.1:${port}/health`).catch(() => undefined);
    // An unread body would keep its connection busy.
    await response?.text().catch(() => undefined);
    if (response?.status === 200) return;
    if (performance.now() - begin > BOOT_TIMEOUT_MS) throw new Error("the raw engine did not become healthy");
    await sleep(POLL_MS);
  }
}

async function measureDocker(ctx: BenchContext, dockerHost: string | undefined): Promise<Measure> {
  const image = await buildReferenceImage({ dockerHost, log: SILENT });
  await using service = await openService(ctx, { engine: "reference", dockerImage: image });
  await using stack = new AsyncDisposableStack();
  const client = stack.use(await openDockerClient({ dockerHost, callTimeoutMs: CALL_TIMEOUT_MS }));
  const instanceId = randomUUID();
  stack.defer(async () => {
    const options = { instanceId, marked: false, dockerHost, log: SILENT };
    await using runtime = await openDockerRuntime(options);
    await runtime.removeInstance();
  });
  const raw = async () => runRaw(client, { service, instanceId, image });
  return await compare(ctx, service, { name: "Docker", against: "raw create, start, first healthy", raw });
}

interface RawContainer {
  service: Service;
  instanceId: string;
  image: string;
}

/** Creates and starts the same container as the service does, with dockerode alone. */
async function runRaw(
  { docker }: DockerClient,
  { service, instanceId, image }: RawContainer,
): Promise<number> {
  const { min: hostPort } = await findPortRange();
  const engineId = randomUUID();
  const volumeName = `enginehouse-bench-${engineId}`;
  const options = toCreateOptions({
    instanceId,
    networkRef: service.network,
    spec: {
      engineId,
      incarnation: 1,
      fencingToken: 1,
      specHash: "bench",
      imageId: image,
      volumeName,
      hostPort,
      enginePort: 8_000,
      internalSubnet: null,
      network: service.network,
      catalogPath: join(service.dataDir, "catalog"),
      environment: {
        ENGINE_KEY_HASH: KEY_HASH,
        SQLITE_DB_PATH: "/data/brain.sqlite",
        CATALOG_DIR: "/catalog",
      },
      limits: { memoryMb: 1_024, cpus: 1, pids: 512, readOnly: false, capAdd: [], user: null },
      openFiles: 16_384,
      tmpMb: 256,
      refusesRoot: true,
      stopGraceSeconds: 30,
    },
  });
  const begin = performance.now();
  const container = await docker.createContainer(options);
  try {
    await container.start();
    await untilHealthy(hostPort, begin);
    return performance.now() - begin;
  } finally {
    await container.remove({ force: true });
    await docker.getVolume(volumeName).remove();
  }
}
