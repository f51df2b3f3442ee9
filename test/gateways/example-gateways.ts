import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { access, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect } from "vitest";
import { buildClient } from "../../build/build-client.ts";
import { takePort } from "../support/ports.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const EXAMPLES = join(ROOT, "examples");
const NEXT = join(EXAMPLES, "next");
const exec = promisify(execFile);

export const EXAMPLE_NAMES = ["node-http", "express", "fastify", "hono", "next"] as const;
/** `pipe` passes a raw route on. */
export type ExampleName = (typeof EXAMPLE_NAMES)[number] | "pipe";

export interface ExampleGateway extends AsyncDisposable {
  readonly url: string;
  /** Ends the process at once, and with it each browser's connection. */
  kill(): Promise<void>;
  start(): Promise<void>;
}

/** Builds the client's package, and installs the frameworks unless they are there. */
export async function installExamples(): Promise<void> {
  await buildClient(join(ROOT, "dist"));
  const hasModules = await access(join(EXAMPLES, "node_modules", "next")).then(
    () => true,
    () => false,
  );
  if (!hasModules) await exec("npm", ["ci", "--no-audit", "--no-fund"], { cwd: EXAMPLES, timeout: 600_000 });
}

/** Throws the compiler's errors. */
export async function checkExampleTypes(): Promise<void> {
  const compiler = join(EXAMPLES, "node_modules", "typescript", "bin", "tsc");
  await exec(process.execPath, [compiler, "-p", EXAMPLES]).catch((error: unknown) => {
    throw error instanceof Error && "stdout" in error ? new Error(String(error.stdout)) : error;
  });
}

/** Starts an example as a program of its own. Its address stays the same over all starts. */
export async function openExample(
  name: ExampleName,
  service: { url: string; apiKey: string },
): Promise<ExampleGateway> {
  const port = await takePort();
  const url = `http://127.0.0.1:${port}`;
  const env = {
    ...process.env,
    NEXT_TELEMETRY_DISABLED: "1",
    // Next refuses the one that the tests run with.
    NODE_ENV: undefined,
    ENGINEHOUSE_URL: service.url,
    PLATFORM_KEY: service.apiKey,
    PORT: String(port),
  };
  const [cwd, args] =
    name === "next"
      ? [NEXT, [join("..", "node_modules", "next", "dist", "bin", "next"), "dev", "-H", "127.0.0.1"]]
      : [EXAMPLES, [`${name}.ts`]];
  let child: ChildProcess | undefined;
  let output = "";

  const start = async () => {
    // A group of its own, because Next starts more processes.
    const started = spawn(process.execPath, args, {
      cwd,
      env,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    child = started;
    for (const stream of [started.stdout, started.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString();
      });
    }
    await expect.poll(async () => answers(url), { timeout: 240_000, message: output }).toBe(true);
  };
  const kill = async () => {
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    process.kill(-child.pid, "SIGKILL");
    await exited;
  };
  await start().catch(async (error: unknown) => {
    await kill();
    throw new Error(`the example ${name} does not answer:\n${output}`, { cause: error });
  });
  return {
    url,
    start,
    kill,
    [Symbol.asyncDispose]: async () => {
      await kill();
      if (name !== "next") return;
      for (const made of [".next", "next-env.d.ts"])
        await rm(join(NEXT, made), { recursive: true, force: true });
    },
  };
}

/** A request without a turn's id is refused. So the gateway answers, and reaches the service. */
async function answers(url: string): Promise<boolean> {
  const response = await fetch(`${url}/chat`, { signal: AbortSignal.timeout(60_000) }).catch(() => undefined);
  await response?.arrayBuffer().catch(() => undefined);
  return response?.status === 400 || response?.status === 404;
}
