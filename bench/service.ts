import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { quote } from "shell-quote";
import { createClient, type Client } from "../client/index.ts";
import { openEmbeddedPostgres } from "../db/embedded/embedded-postgres.ts";
import { findPortRange } from "../demo/port-range.ts";
import { generateMasterKeys } from "../server/keys/keyring.ts";
import { openDockerRuntime } from "../server/runtime/docker/runtime.ts";
import type { EngineRuntime } from "../server/runtime/engine-runtime.ts";
import { openProcessRuntime } from "../server/runtime/process/runtime.ts";
import type { BenchContext } from "./benchmark.ts";
import { readCpu, type CpuReading } from "./cpu-meter.ts";
import { openProgram, type Program } from "./program.ts";

export interface ServiceInput {
  /**
   * The engine to run: the bench engine, which costs almost nothing; the reference engine; or the tiny engine, of which a
   * thousand fit on a small machine.
   */
  engine: "bench" | "reference" | "tiny";
  /** The reference engine's image. With it the engines run in Docker, otherwise as processes. */
  dockerImage?: string;
  /** The events of turns are stored sealed, as in production. */
  sealTurns?: boolean;
  /** The service listens on a port that no other program gets while it is away, so that `crash` keeps its address. */
  isCrashed?: boolean;
}

/** The real service as `npm start` runs it, with its own Postgres, data directory and ports. */
export interface Service extends Pick<Program, "url" | "pid" | "readMemory">, AsyncDisposable {
  readonly dataDir: string;
  readonly databaseUrl: string;
  readonly adminKey: string;
  readonly network: string;
  /** The CPU used so far by the service and its Postgres. */
  readCpu(): Promise<CpuReading>;
  /** The same for another program, which may use the same Postgres. */
  readCpuOf(program: Pick<Program, "pid">): Promise<CpuReading>;
  openProduct(): Promise<Product>;
  /** Kills the service and starts it again. Resolves when it listens. Its engines and its Postgres go on. */
  crash(): Promise<void>;
  /** Starts a baseline program. It is stopped before the service is. */
  openBaseline(name: string, env?: Readonly<Record<string, string>>): Promise<Program>;
}

export interface Product {
  productId: string;
  apiKey: string;
  client: Client;
}

const ENTRY = fileURLToPath(new URL("../server/main.ts", import.meta.url));
const BENCH_ENGINE = fileURLToPath(new URL("engine-main.ts", import.meta.url));
const ENGINE_COMMANDS = {
  bench: quote([process.execPath, BENCH_ENGINE]),
  reference: undefined,
  tiny: quote(["perl", fileURLToPath(new URL("../engine/tiny-engine.pl", import.meta.url))]),
};
/** Outside the ranges of the tests and of other benchmarks, with some ports to spare. */
const TINY_PORTS = { min: 31_000, max: 32_099 };
const SILENT = { info: () => undefined, warn: () => undefined };

/** Disposing stops the service and removes everything that it made. */
export async function openService(ctx: BenchContext, input: ServiceInput): Promise<Service> {
  await using stack = new AsyncDisposableStack();
  const dataDir = await mkdtemp(join(tmpdir(), "enginehouse-bench-"));
  stack.defer(() => rm(dataDir, { recursive: true, force: true, maxRetries: 10 }));
  const postgres = stack.use(await openEmbeddedPostgres({ dataDir }));
  const logFiles: string[] = [];
  stack.defer(() => logProblems(ctx, logFiles));
  stack.defer(() => removeEngines({ dataDir, logFiles, isDocker: input.dockerImage !== undefined }));

  const adminKey = randomBytes(32).toString("base64url");
  const network = `enginehouse-bench-${randomUUID()}`;
  const env = await toEnvironment({ ...input, dataDir, databaseUrl: postgres.url, adminKey, network });
  const { signal, cpuProfDir } = ctx;
  const start = async () => {
    const logFile = join(dataDir, `service-${logFiles.length + 1}.log`);
    logFiles.push(logFile);
    return openProgram({ entry: ENTRY, env, logFile, signal, cpuProfDir });
  };
  let program = stack.use(await start());

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
    get pid() {
      return program.pid;
    },
    readMemory: () => program.readMemory(),
    crash: async () => {
      await program.kill();
      program = opened.use(await start());
    },
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
  const ports = input.engine === "tiny" ? { ...TINY_PORTS } : await findPortRange();
  const port = input.isCrashed === true ? ports.min++ : 0;
  const { PATH, HOME, TMPDIR, DOCKER_HOST } = process.env;
  return {
    PATH,
    HOME,
    TMPDIR,
    DOCKER_HOST,
    NODE_ENV: "development",
    ORCH_ADMIN_KEY: input.adminKey,
    // Programs that are compared with the service check the same keys.
    ORCH_MASTER_KEYS: generateMasterKeys(),
    ORCH_DATA_DIR: input.dataDir,
    ORCH_DATABASE_URL: input.databaseUrl,
    ORCH_PORT: String(port),
    ORCH_PORT_MIN: String(ports.min),
    ORCH_PORT_MAX: String(ports.max),
    ORCH_ENGINE_BACKEND: input.dockerImage === undefined ? "process" : "docker",
    ORCH_ENGINE_IMAGE: input.dockerImage,
    ORCH_ENGINE_NETWORK: input.network,
    ORCH_ENGINE_COMMAND: ENGINE_COMMANDS[input.engine],
    ORCH_SEAL_TURNS: String(input.sealTurns ?? false),
    ORCH_DRAIN_S: "0",
    ORCH_LOG_PRETTY: "false",
  };
}

/** Prints the warnings and errors of the service: with them, the figures may mean something else. */
async function logProblems(ctx: BenchContext, logFiles: readonly string[]): Promise<void> {
  const log = await readLogs(logFiles);
  const problems = log.split("\n").filter((line) => /"level":"(?:warn|error)"/.test(line));
  if (problems.length === 0) return;
  ctx.log(
    `the service logged ${problems.length} warnings or errors, the first ones:\n${problems.slice(0, 3).join("\n")}`,
  );
}

async function readLogs(logFiles: readonly string[]): Promise<string> {
  const logs = await Promise.all(logFiles.map((file) => readFile(file, "utf8").catch(() => "")));
  return logs.join("\n");
}

/** Uses the runtime directly, because the service has exited. */
async function removeEngines(input: {
  dataDir: string;
  logFiles: readonly string[];
  isDocker: boolean;
}): Promise<void> {
  const log = await readLogs(input.logFiles);
  const instanceId = /"instanceId":"([^"]+)"/.exec(log)?.[1];
  if (instanceId === undefined) return;
  await using runtime = await openRuntime(instanceId, input);
  await runtime.removeInstance();
}

async function openRuntime(
  instanceId: string,
  { dataDir, isDocker }: { dataDir: string; isDocker: boolean },
): Promise<EngineRuntime> {
  const options = { instanceId, marked: false, log: SILENT };
  if (isDocker) return openDockerRuntime({ ...options, dockerHost: process.env["DOCKER_HOST"] });
  return openProcessRuntime({ ...options, dataDir, command: [process.execPath] });
}
