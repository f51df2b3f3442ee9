import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findProcess } from "../../db/process-identity.ts";
import { openProcessRuntime } from "../../server/runtime/process/runtime.ts";

const MAIN = fileURLToPath(new URL("../../server/main.ts", import.meta.url));

export const ADMIN_KEY = "operator-key-of-thirty-two-characters-or-more";

/** A real process of the service, started as by `npm start`. */
export interface Service extends AsyncDisposable {
  readonly pid: number;
  readonly url: string;
  /** Its output so far, on both streams. */
  output(): string;
  /** Resolves with the exit code; null if a signal ended it. */
  readonly exited: Promise<number | null>;
  signal(name: NodeJS.Signals): Promise<number | null>;
}

export interface SpawnedService extends Omit<Service, "url"> {
  /** Resolves with the url once it serves. Rejects with the output if it exits before. */
  readonly listening: Promise<string>;
}

/** Starts the service and returns at once. Its environment has only the given variables, PATH and TMPDIR. */
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
    // A test that only awaits the exit does not await the url.
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

/** Engines outlive the service by design. This removes those that a failed test has left. */
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

/** Calls a procedure over plain HTTP. */
export async function callProcedure(
  caller: { url: string; key: string },
  procedure: string,
  input: unknown,
): Promise<{ status: number; data: Record<string, unknown>; reason: string | undefined }> {
  const isQuery = /\.(get|list|verify|ready|live)$/.test(procedure);
  const query = isQuery ? `?input=${encodeURIComponent(JSON.stringify(input))}` : "";
  const response = await fetch(`${caller.url}/trpc/${procedure}${query}`, {
    method: isQuery ? "GET" : "POST",
    headers: { authorization: `Bearer ${caller.key}`, "content-type": "application/json" },
    ...(isQuery ? {} : { body: JSON.stringify(input) }),
  });
  const body = (await response.json()) as {
    result?: { data: Record<string, unknown> };
    error?: { data: { reason: string } };
  };
  return { status: response.status, data: body.result?.data ?? {}, reason: body.error?.data.reason };
}

/** The pid of the embedded Postgres in the data directory. undefined: it does not run. */
export async function findEmbeddedPid(dataDir: string): Promise<number | undefined> {
  const text = await readFile(join(dataDir, "postgres", "pgdata", "postmaster.pid"), "utf8").catch(() => "");
  const pid = Number(text.split("\n")[0]);
  return pid > 0 && (await findProcess(pid)) !== undefined ? pid : undefined;
}

/** Only the service ends the processes of engines, so every test must destroy the engines that it provisions. */
export async function registerProduct(url: string): Promise<string> {
  const operator = { url, key: ADMIN_KEY };
  const { data } = await callProcedure(operator, "products.register", { slug: "acme", name: "Acme" });
  return String(data["apiKey"]);
}
