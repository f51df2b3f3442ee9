import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { takePort } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, callProcedure } from "./spawn-service.ts";

const MAIN = fileURLToPath(new URL("../../server/main.ts", import.meta.url));

interface Readiness {
  ok?: boolean;
  subsystems?: Record<string, string>;
}

/** Undefined while nothing listens. */
async function readinessOf(url: string): Promise<Readiness | undefined> {
  return fetch(`${url}/readyz`)
    .then(async (response) => (await response.json()) as Readiness)
    .catch(() => undefined);
}

/** Starts the service in a shell, with its output as `redirection` says. A log that cannot be read needs a fixed port. */
async function startShell(redirection: string) {
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

async function callOften(url: string, times: number): Promise<void> {
  for (let done = 0; done < times; done += 50) {
    const calls = Array.from({ length: 50 }, async () =>
      callProcedure({ url, key: ADMIN_KEY }, "products.list", { limit: "x".repeat(100) }),
    );
    for (const { status } of await Promise.all(calls)) expect(status).toBe(400);
  }
}

test.each([
  ["a full disk", "SERVICE > /dev/full 2>&1"],
  ["a reader that left", "SERVICE 2>&1 | head -c 10"],
  ["a reader that reads nothing", "SERVICE 2>&1 | sleep 100000"],
])(
  "with %s behind its log the service starts, serves and says that the log is degraded",
  async (_name, shell) => {
    await using service = await startShell(shell);
    // More than a pipe holds.
    await callOften(service.url, 1_000);
    await expect
      .poll(() => readinessOf(service.url))
      .toMatchObject({ ok: true, subsystems: { log: "degraded", database: "ok" } });
  },
);

test("a failed start says why on standard error if its log cannot be written", async () => {
  await using home = await openTempDir();
  const child = spawn("sh", ["-c", `exec "${process.execPath}" "${MAIN}" > /dev/full`], {
    env: {
      PATH: process.env["PATH"],
      ORCH_DATA_DIR: home.path,
      ORCH_DATABASE_URL: "postgres://u:p@127.0.0.1:9/none",
    },
  });
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()));
  const [code] = (await once(child, "close")) as [number];
  expect(code).toBe(1);
  expect(text).toContain("start failed: ");
  expect(text).toContain("the database of ORCH_DATABASE_URL is not available");
});

test("a service whose log cannot be written drains after SIGTERM, and exits with 0", async () => {
  await using service = await startShell("SERVICE > /dev/full 2>&1");
  const exited = once(service.child, "exit");
  service.child.kill("SIGTERM");
  expect(await exited).toEqual([0, null]);
});

test("a reader that stops for a while gets all lines afterwards", async () => {
  await using service = await startShell("SERVICE");
  const before = await readinessOf(service.url);
  expect(before?.subsystems?.["log"]).toBe("ok");
  await callOften(service.url, 2_000);
  await expect.poll(async () => (await readinessOf(service.url))?.subsystems?.["log"]).toBe("degraded");
  let text = "";
  service.child.stdout?.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await expect.poll(async () => (await readinessOf(service.url))?.subsystems?.["log"]).toBe("ok");
  await expect.poll(() => text.match(/"path":"\/trpc\/products.list/g)?.length).toBe(2_000);
});
