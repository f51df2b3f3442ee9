import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import postgres from "postgres";
import { describe, expect, test } from "vitest";
import { openTempDir } from "../support/temp-dir.ts";
import { openEmptyDatabase, openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, findEmbeddedPid, spawnService } from "./spawn-service.ts";

const toEnvironment = (dataDir: string, databaseUrl: string) => ({
  ORCH_DATA_DIR: dataDir,
  ORCH_DATABASE_URL: databaseUrl,
  ORCH_ADMIN_KEY: ADMIN_KEY,
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
    await expect.poll(findWaiting, { timeout: 120_000 }).toHaveLength(1);
    expect(await service.signal("SIGHUP")).toBe(0);
    await sql.end();
  });

  test.each([
    ["initdb", "creating a Postgres cluster"],
    ["Postgres", "Postgres started"],
  ])("while %s works", async (_name, line) => {
    await using home = await openTempDir();
    await using service = spawnService({ ORCH_DATA_DIR: home.path, ORCH_ADMIN_KEY: ADMIN_KEY });
    await expect.poll(() => service.output(), { timeout: 120_000 }).toContain(line);
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
