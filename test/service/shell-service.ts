import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { takePort } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, callProcedure } from "./spawn-service.ts";

export const MAIN = fileURLToPath(new URL("../../server/main.ts", import.meta.url));

interface Readiness {
  ok?: boolean;
  subsystems?: Record<string, string>;
}

/** Undefined while nothing listens. */
export async function readinessOf(url: string): Promise<Readiness | undefined> {
  return fetch(`${url}/readyz`)
    .then(async (response) => (await response.json()) as Readiness)
    .catch(() => undefined);
}

/** Starts the service in a shell, with its output as `redirection` says. A log that cannot be read needs a fixed port. */
export async function startShell(redirection: string) {
  await using stack = new AsyncDisposableStack();
  const home = stack.use(await openTempDir());
  const database = stack.use(await openTestDatabase());
  const port = await takePort();
  // The shell passes signals on only if the service replaces it. Only a service in a pipeline needs another way.
  const child = spawn("/bin/bash", ["-c", redirection.replace("SERVICE", `exec "$NODE" "$MAIN"`)], {
    env: {
      PATH: process.env["PATH"] ?? "",
      NODE: process.execPath,
      MAIN,
      ORCH_PORT: String(port),
      ORCH_DATA_DIR: home.path,
      ORCH_DATABASE_URL: database.url,
      ORCH_ADMIN_KEY: ADMIN_KEY,
      ORCH_LOG_LEVEL: "debug",
    },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  stack.defer(() => endGroup(child));
  const url = `http://127.0.0.1:${port}`;
  await expect.poll(async () => (await readinessOf(url))?.ok, { timeout: 60_000 }).toBe(true);
  const kept = stack.move();
  return { url, child, [Symbol.asyncDispose]: async () => kept.disposeAsync() };
}

async function endGroup(child: ChildProcess): Promise<void> {
  child.stdout?.resume();
  child.stderr?.resume();
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  process.kill(-(child.pid ?? 0), "SIGKILL");
  await exited;
}

export async function callOften(url: string, times: number): Promise<void> {
  for (let done = 0; done < times; done += 50) {
    const calls = Array.from({ length: 50 }, async () =>
      callProcedure({ url, key: ADMIN_KEY }, "products.list", { limit: "x".repeat(100) }),
    );
    for (const { status } of await Promise.all(calls)) expect(status).toBe(400);
  }
}
