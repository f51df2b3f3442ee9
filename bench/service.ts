import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { quote } from "shell-quote";
import { createClient, type Client } from "../client/index.ts";
import { openEmbeddedPostgres } from "../db/embedded/embedded-postgres.ts";
import { findPortRange } from "../demo/port-range.ts";
import { openDockerRuntime } from "../server/runtime/docker/runtime.ts";
import type { EngineRuntime } from "../server/runtime/engine-runtime.ts";
import { openProcessRuntime } from "../server/runtime/process/runtime.ts";
import type { BenchContext } from "./benchmark.ts";
import { readCpu, type CpuReading } from "./cpu-meter.ts";
import { openProgram, type Program } from "./program.ts";

export interface ServiceInput {
  /** What runs as an engine: a source of events that costs nothing, or the reference engine. */
  engine: "bench" | "reference";
  /** The reference engine's image: then engines are containers. */
  dockerImage?: string;
}

/** The real service as `npm start` runs it, with a Postgres, a data directory and ports of its own. */
export interface Service extends Pick<Program, "url" | "readMemory">, AsyncDisposable {
  readonly dataDir: string;
  readonly databaseUrl: string;
  readonly adminKey: string;
  readonly network: string;
  /** CPU so far, of the service and of its Postgres. */
  readCpu(): Promise<CpuReading>;
  /** Likewise of another program, which may use the same Postgres. */
  readCpuOf(program: Program): Promise<CpuReading>;
  openProduct(): Promise<Product>;
  /** Starts another program of the benchmark, which goes before the service does. */
  openBaseline(name: string, env?: Readonly<Record<string, string>>): Promise<Program>;
}

export interface Product {
  productId: string;
  apiKey: string;
  client: Client;
}

const ENTRY = fileURLToPath(new URL("../server/main.ts", import.meta.url));
const BENCH_ENGINE = fileURLToPath(new URL("engine-main.ts", import.meta.url));
const SILENT = { info: () => undefined, warn: () => undefined };

/** Disposing takes everything away again. */
export async function openService(ctx: BenchContext, input: ServiceInput): Promise<Service> {
  await using stack = new AsyncDisposableStack();
  const dataDir = await mkdtemp(join(tmpdir(), "enginehouse-bench-"));
  stack.defer(() => rm(dataDir, { recursive: true, force: true, maxRetries: 10 }));
  const postgres = stack.use(await openEmbeddedPostgres({ dataDir }));
  const logFile = join(dataDir, "service.log");
  stack.defer(() => tellComplaints(ctx, logFile));
  stack.defer(() => removeEngines({ dataDir, logFile, isDocker: input.dockerImage !== undefined }));

  const adminKey = randomBytes(32).toString("base64url");
  const network = `enginehouse-bench-${randomUUID()}`;
  const env = await toEnvironment({ ...input, dataDir, databaseUrl: postgres.url, adminKey, network });
  const { signal, cpuProfDir } = ctx;
  const program = stack.use(await openProgram({ entry: ENTRY, env, logFile, signal, cpuProfDir }));

  const operator = createClient({ url: program.url, key: adminKey });
  const openProduct = async () => {
    const slug = `bench-${randomBytes(4).toString("hex")}`;
    const { product, apiKey } = await operator.api.products.register.mutate({ slug, name: slug });
    const client = createClient({ url: program.url, key: apiKey });
    return { productId: product.productId, apiKey, client };
  };
  const opened = stack.move();
  const openBaseline = async (name: string, more: Readonly<Record<string, string>> = {}) =>
    opened.use(
      await openProgram({
        entry: fileURLToPath(new URL(`baselines/${name}-main.ts`, import.meta.url)),
        env: { ...env, ...more },
        logFile: join(dataDir, `${name}-${randomUUID()}.log`),
        signal,
      }),
    );
  return {
    url: program.url,
    readMemory: () => program.readMemory(),
    dataDir,
    databaseUrl: postgres.url,
    adminKey,
    network,
    readCpu: () => readCpu(program.pid, postgres.pid),
    readCpuOf: ({ pid }) => readCpu(pid, postgres.pid),
    openProduct,
    openBaseline,
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

interface EnvironmentInput extends ServiceInput {
  dataDir: string;
  databaseUrl: string;
  adminKey: string;
  network: string;
}

async function toEnvironment(input: EnvironmentInput): Promise<Record<string, string | undefined>> {
  const ports = await findPortRange();
  const { PATH, HOME, TMPDIR, DOCKER_HOST } = process.env;
  return {
    PATH,
    HOME,
    TMPDIR,
    DOCKER_HOST,
    NODE_ENV: "development",
    ORCH_ADMIN_KEY: input.adminKey,
    ORCH_DATA_DIR: input.dataDir,
    ORCH_DATABASE_URL: input.databaseUrl,
    ORCH_PORT: "0",
    ORCH_PORT_MIN: String(ports.min),
    ORCH_PORT_MAX: String(ports.max),
    ORCH_ENGINE_BACKEND: input.dockerImage === undefined ? "process" : "docker",
    ORCH_ENGINE_IMAGE: input.dockerImage,
    ORCH_ENGINE_NETWORK: input.network,
    ORCH_ENGINE_COMMAND: input.engine === "bench" ? quote([process.execPath, BENCH_ENGINE]) : undefined,
    ORCH_DRAIN_S: "0",
    ORCH_LOG_PRETTY: "false",
  };
}

/** A benchmark whose service complains has measured something else. */
async function tellComplaints(ctx: BenchContext, logFile: string): Promise<void> {
  const log = await readFile(logFile, "utf8").catch(() => "");
  const complaints = log.split("\n").filter((line) => /"level":"(?:warn|error)"/.test(line));
  if (complaints.length === 0) return;
  ctx.say(
    `the service complained ${complaints.length} times, at first:\n${complaints.slice(0, 3).join("\n")}`,
  );
}

/** By the runtime itself, after the service is gone. */
async function removeEngines(input: { dataDir: string; logFile: string; isDocker: boolean }): Promise<void> {
  const log = await readFile(input.logFile, "utf8").catch(() => "");
  const instanceId = /"instanceId":"([^"]+)"/.exec(log)?.[1];
  if (instanceId === undefined) return;
  await using runtime = await openRuntime(instanceId, input);
  await runtime.removeInstance();
}

async function openRuntime(
  instanceId: string,
  { dataDir, isDocker }: { dataDir: string; isDocker: boolean },
): Promise<EngineRuntime> {
  const place = { instanceId, marked: false, log: SILENT };
  if (isDocker) return openDockerRuntime({ ...place, dockerHost: process.env["DOCKER_HOST"] });
  return openProcessRuntime({ ...place, dataDir, command: [process.execPath] });
}
