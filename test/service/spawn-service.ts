import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findProcess } from "../../db/process-identity.ts";
import { openProcessRuntime } from "../../server/runtime/process/runtime.ts";

const MAIN = fileURLToPath(new URL("../../server/main.ts", import.meta.url));

export const ADMIN_KEY = "operator-key-of-thirty-two-characters-or-more";

/** The service as `npm start` runs it, as a real process. */
export interface Service extends AsyncDisposable {
  readonly pid: number;
  readonly url: string;
  /** Everything it wrote so far. */
  output(): string;
  /** Resolves with its exit code; null after a signal. */
  readonly exited: Promise<number | null>;
  signal(name: NodeJS.Signals): Promise<number | null>;
}

export interface SpawnedService extends Omit<Service, "url"> {
  /** Resolves once it serves; rejects with its output when it ends first. */
  readonly listening: Promise<string>;
}

/** Starts it and does not wait. Nothing but what is given here reaches its environment. */
export function spawnService(environment: Record<string, string>): SpawnedService {
  const child = spawn(process.execPath, [MAIN], {
    env: {
      PATH: process.env["PATH"] ?? "",
      TMPDIR: process.env["TMPDIR"] ?? "/tmp",
      ORCH_PORT: "0",
      ...environment,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  const listening = Promise.withResolvers<string>();
  const onChunk = (chunk: Buffer) => {
    output += chunk.toString();
    const url = /"url":"([^"]+)".*"msg":"listening"/.exec(output)?.[1];
    if (url !== undefined) listening.resolve(url);
  };
  child.stdout.on("data", onChunk);
  child.stderr.on("data", onChunk);
  const exited = untilExit(child);
  void exited.then(() => listening.reject(new Error(`the service ended before it listened:\n${output}`)));
  listening.promise.catch(() => {
    // Whoever only looks at the exit does not ask for the url.
  });
  const signal = async (name: NodeJS.Signals) => {
    child.kill(name);
    return exited;
  };
  return {
    pid: child.pid ?? 0,
    listening: listening.promise,
    output: () => output,
    exited,
    signal,
    [Symbol.asyncDispose]: async () => {
      await signal("SIGTERM");
      await removeEngines(output, environment["ORCH_DATA_DIR"] ?? "");
    },
  };
}

export async function startService(environment: Record<string, string>): Promise<Service> {
  const service = spawnService(environment);
  return { ...service, url: await service.listening };
}

/** Engines outlive the service on purpose; what a test that failed left of them goes here. */
async function removeEngines(output: string, dataDir: string): Promise<void> {
  const instanceId = /"instanceId":"([^"]+)"/.exec(output)?.[1];
  if (instanceId === undefined) return;
  const log = { warn: () => {} };
  await using runtime = await openProcessRuntime({
    instanceId,
    marked: false,
    dataDir,
    command: ["none"],
    log,
  });
  await runtime.removeInstance();
}

async function untilExit(child: ChildProcess): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  return child.exitCode;
}

/** One call over HTTP, as anybody would make it. */
export async function callProcedure(
  place: { url: string; key: string },
  procedure: string,
  input: unknown,
): Promise<{ status: number; data: Record<string, unknown>; reason: string | undefined }> {
  const isQuery = /\.(get|list|verify|ready|live)$/.test(procedure);
  const query = isQuery ? `?input=${encodeURIComponent(JSON.stringify(input))}` : "";
  const response = await fetch(`${place.url}/trpc/${procedure}${query}`, {
    method: isQuery ? "GET" : "POST",
    headers: { authorization: `Bearer ${place.key}`, "content-type": "application/json" },
    ...(isQuery ? {} : { body: JSON.stringify(input) }),
  });
  const body = (await response.json()) as {
    result?: { data: Record<string, unknown> };
    error?: { data: { reason: string } };
  };
  return { status: response.status, data: body.result?.data ?? {}, reason: body.error?.data.reason };
}

/** The embedded Postgres of that data directory, undefined when it does not run. */
export async function findEmbeddedPid(dataDir: string): Promise<number | undefined> {
  const text = await readFile(join(dataDir, "postgres", "pgdata", "postmaster.pid"), "utf8").catch(() => "");
  const pid = Number(text.split("\n")[0]);
  return pid > 0 && (await findProcess(pid)) !== undefined ? pid : undefined;
}
