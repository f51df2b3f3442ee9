import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createClient, type Client } from "../../client/index.ts";
import { openProcessRuntime } from "../../server/runtime/process/runtime.ts";
import { takePort, takePortRange } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";

const ENTRY = fileURLToPath(new URL("../../server/main.ts", import.meta.url));

export interface ServiceProcess extends AsyncDisposable {
  readonly url: string;
  /** Resolves when it listens. */
  start(): Promise<void>;
  /** Resolves when it has exited. */
  stop(signal: NodeJS.Signals): Promise<number | null>;
  /** Registers a product. Its key has every scope but the one to reveal engine keys. */
  openProduct(slug: string): Promise<{ client: Client; apiKey: string }>;
}

/** The real service with process engines. Every start uses the same address and the same database. */
export async function openServiceProcess(
  settings: Readonly<Record<string, string>> = {},
): Promise<ServiceProcess> {
  await using stack = new AsyncDisposableStack();
  const temp = stack.use(await openTempDir());
  const database = stack.use(await openTestDatabase());
  const adminKey = randomBytes(32).toString("base64url");
  const port = await takePort();
  const ports = takePortRange(6);
  const url = `http://127.0.0.1:${port}`;
  const env = {
    ...process.env,
    NODE_ENV: "development",
    ORCH_ADMIN_KEY: adminKey,
    ORCH_DATA_DIR: temp.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ENGINE_BACKEND: "process",
    ORCH_PORT: String(port),
    ORCH_PORT_MIN: String(ports.min),
    ORCH_PORT_MAX: String(ports.max),
    ORCH_LOG_PRETTY: "false",
    ...settings,
  };
  let child: ChildProcess | undefined;
  let instanceId: string | undefined;

  const start = async () => {
    const started = spawn(process.execPath, [ENTRY], { env, stdio: ["ignore", "pipe", "inherit"] });
    child = started;
    const log: string[] = [];
    const listening = Promise.withResolvers<void>();
    createInterface({ input: started.stdout }).on("line", (line) => {
      log.push(line);
      instanceId ??= /"instanceId":"([^"]+)"/.exec(line)?.[1];
      if (line.includes('"msg":"listening"')) listening.resolve();
    });
    started.once("exit", (code) => listening.reject(new Error(`exit code ${code}\n${log.join("\n")}`)));
    await listening.promise;
  };
  const stop = async (signal: NodeJS.Signals) => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return null;
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
    return child.exitCode;
  };
  // Engines outlive the service, so remove them at the end of the test.
  stack.defer(async () => {
    await stop("SIGKILL");
    if (instanceId === undefined) return;
    const options = { instanceId, marked: false, dataDir: temp.path, command: [process.execPath] };
    await using runtime = await openProcessRuntime({ ...options, log: { warn: () => undefined } });
    await runtime.removeInstance();
  });
  const opened = stack.move();
  return {
    url,
    start,
    stop,
    openProduct: async (slug) => {
      const operator = createClient({ url, key: adminKey });
      const { apiKey } = await operator.api.products.register.mutate({ slug, name: slug });
      return { client: createClient({ url, key: apiKey }), apiKey };
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}
