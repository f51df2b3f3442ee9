import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { describe, expect, test } from "vitest";
import { openDataDir } from "../../server/boot/data-dir.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openEmptyDatabase, openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, findEmbeddedPid, spawnService, startService } from "./spawn-service.ts";

const run = promisify(execFile);

const toEnvironment = (dataDir: string, databaseUrl: string) => ({
  ORCH_DATA_DIR: dataDir,
  ORCH_DATABASE_URL: databaseUrl,
  ORCH_ADMIN_KEY: ADMIN_KEY,
});

describe("signals", () => {
  test.each(["SIGHUP", "SIGQUIT", "SIGINT"] as const)(
    "%s drains the service and ends it with 0",
    async (name) => {
      await using home = await openTempDir();
      await using database = await openTestDatabase();
      await using service = await startService(toEnvironment(home.path, database.url));
      expect(await service.signal(name)).toBe(0);
      expect(service.output()).toMatch(/"draining".*"closed; engines keep running/s);
    },
  );

  test("SIGUSR1 opens no debugger, and SIGUSR2 does not end the service", async () => {
    await using home = await openTempDir();
    await using database = await openTestDatabase();
    await using service = await startService(toEnvironment(home.path, database.url));
    for (const name of ["SIGUSR1", "SIGUSR2"] as const) {
      void service.signal(name);
      await expect.poll(() => service.output()).toContain(`"signal":"${name}","msg":"signal ignored"`);
    }
    expect(service.output()).not.toContain("Debugger listening");
    expect((await fetch(`${service.url}/healthz`)).status).toBe(200);
  });
});

describe("a signal during the start ends the start with 0, and nothing keeps running", () => {
  test("while a database does not answer", async () => {
    await using home = await openTempDir();
    const taken = Promise.withResolvers<void>();
    const silent = createServer(() => taken.resolve()).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo;
    const url = `postgres://nobody:nothing@127.0.0.1:${port}/nothing`;
    await using service = spawnService(toEnvironment(home.path, url));
    await taken.promise;
    expect(await service.signal("SIGTERM")).toBe(0);
    silent.close();
  });

  test("while another program holds the migration lock", async () => {
    await using home = await openTempDir();
    await using database = await openEmptyDatabase();
    const sql = postgres(database.url, { max: 1 });
    await sql`select pg_advisory_lock(7308327829064410227)`;
    await using service = spawnService(toEnvironment(home.path, database.url));
    const findWaiting = async () =>
      sql`select 1 from pg_locks where locktype = 'advisory' and not granted and database =
        (select oid from pg_database where datname = current_database())`;
    await expect.poll(findWaiting).toHaveLength(1);
    expect(await service.signal("SIGHUP")).toBe(0);
    await sql.end();
  });

  test.each([
    ["initdb", "creating a Postgres cluster"],
    ["Postgres", "Postgres started"],
  ])("while %s works", async (_name, line) => {
    await using home = await openTempDir();
    await using service = spawnService({ ORCH_DATA_DIR: home.path, ORCH_ADMIN_KEY: ADMIN_KEY });
    await expect.poll(() => service.output()).toContain(line);
    expect(await service.signal("SIGTERM")).toBe(0);
    expect(await findEmbeddedPid(home.path)).toBeUndefined();
    expect((await readdir(home.path)).filter((name) => name.startsWith("postgres.new"))).toEqual([]);
  });

  test("while the daemon does not answer", async () => {
    await using home = await openTempDir();
    await using database = await openTestDatabase();
    const asked = Promise.withResolvers<void>();
    const socketPath = join(home.path, "docker.sock");
    const silent = createServer(() => asked.resolve()).listen(socketPath);
    await once(silent, "listening");
    await using service = spawnService({
      ...toEnvironment(join(home.path, "data"), database.url),
      ORCH_ENGINE_BACKEND: "docker",
      DOCKER_HOST: `unix://${socketPath}`,
    });
    await asked.promise;
    expect(await service.signal("SIGTERM")).toBe(0);
    silent.close();
  });
});

describe("the data directory", () => {
  test.each([
    ["below /proc", async () => "/proc/enginehouse/data", "cannot be made"],
    [
      "below a file",
      async (home: string) => {
        await writeFile(join(home, "file"), "");
        return join(home, "file", "data");
      },
      "cannot be made",
    ],
    [
      "a loop of links",
      async (home: string) => {
        await symlink(join(home, "loop"), join(home, "loop"));
        return join(home, "loop");
      },
      "cannot be made",
    ],
    ["/proc", async () => "/proc", "cannot be written"],
  ])("is refused at once by name if it is %s", async (_name, prepare, problem) => {
    await using home = await openTempDir();
    const dataDir = await prepare(home.path);
    const service = spawnService({ ORCH_DATA_DIR: dataDir, ORCH_ADMIN_KEY: ADMIN_KEY });
    expect(await service.exited).toBe(1);
    expect(service.output()).toContain(`the data directory ${dataDir} ${problem}`);
    expect(service.output()).toContain("set ORCH_DATA_DIR to a directory that this user may write");
  });

  test("is made with its parents", async () => {
    await using home = await openTempDir();
    const opened = await openDataDir(join(home.path, "a", "b", "c"), { holdsDatabase: false });
    await opened.check();
    expect(await readdir(join(home.path, "a", "b", "c"))).toEqual([]);
  });

  test("that cannot be written any more degrades the service, and the log names the path", async () => {
    await using home = await openTempDir();
    await using database = await openTestDatabase();
    const dataDir = join(home.path, "data");
    await using service = await startService(toEnvironment(dataDir, database.url));
    const readiness = async () => (await fetch(`${service.url}/readyz`)).json();
    await expect.poll(readiness).toMatchObject({ ok: true, subsystems: { dataDir: "ok" } });
    await rm(dataDir, { recursive: true });
    await expect.poll(readiness).toMatchObject({ ok: true, subsystems: { dataDir: "degraded" } });
    expect(service.output()).toContain(`the data directory ${dataDir} cannot be written`);
    await mkdir(dataDir);
    await expect.poll(readiness).toMatchObject({ subsystems: { dataDir: "ok" } });
  });

  test("on a full disk cannot be written, and the check says so", async ({ skip }) => {
    await using home = await openTempDir();
    const disk = join(home.path, "disk");
    await mkdir(disk);
    const isMounted = await run("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]).then(
      () => true,
      () => false,
    );
    if (!isMounted) skip("this user may not mount a small disk");
    try {
      const dataDir = await openDataDir(disk, { holdsDatabase: true });
      await writeFile(join(disk, "filler"), Buffer.alloc(64 * 1024)).catch(() => {
        // The disk is full, as it should be.
      });
      await expect(dataDir.check()).rejects.toThrow(/data directory .*disk cannot be written \(ENOSPC/);
      await rm(join(disk, "filler"));
      await dataDir.check();
    } finally {
      await run("umount", [disk]);
    }
  });
});
