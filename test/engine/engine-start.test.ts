import { DatabaseSync } from "node:sqlite";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openHome, spawnEngine, spawnMain, toEngineEnv } from "./spawn-engine.ts";

test("an engine with an invalid environment exits 1 with one line that names every problem", async () => {
  const { ended, output } = spawnMain({ ENGINE_PORT: "70000", ENGINE_KEY_HASH: "ABC" });
  expect(await ended).toBe(1);
  expect(output.stderr.trim().split("\n")).toHaveLength(1);
  for (const name of ["ENGINE_KEY_HASH", "SQLITE_DB_PATH", "CATALOG_DIR", "ENGINE_PORT"]) {
    expect(output.stderr).toContain(name);
  }
});

test("the log line of a started engine has its port, and stderr stays empty", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  expect(engine.output.stdout.trim().split("\n")).toHaveLength(1);
  const line: unknown = JSON.parse(engine.output.stdout);
  expect(line).toMatchObject({ msg: "listening", host: "127.0.0.1", port: expect.any(Number) });
  expect(engine.output.stderr).toBe("");
});

test("a ready engine reports ok and the state of its subsystems", async () => {
  await using home = await openHome();
  await writeFile(join(home.catalogDir, "core_soul.json"), "{}");
  await using engine = await spawnEngine(home);
  expect(await (await fetch(`${engine.url}/health`)).json()).toEqual({
    status: "ok",
    uptime_seconds: expect.any(Number),
    subsystems: {
      brain: { ok: true, threads: 0 },
      catalog: { ok: true, entries: 1, core_soul: true },
      turns: { ok: true, in_flight: 0, waiting_for_human: 0 },
    },
  });
});

test("an engine with an unreadable catalog is not ready and reports the failed subsystem", async () => {
  await using home = await openHome();
  await rm(home.catalogDir, { recursive: true });
  await using engine = await spawnEngine(home);
  const { status, body } = await engine.get("/health");
  expect(status).toBe(503);
  expect(body).toMatchObject({
    status: "degraded",
    subsystems: { brain: { ok: true }, catalog: { ok: false } },
  });
});

test("an engine does not start with a file that is not a brain", async () => {
  await using home = await openHome();
  await writeFile(
    home.brainPath,
    "this is not a database, and it is long enough to be taken for one".repeat(20),
  );
  const { ended, output } = spawnMain(toEngineEnv(home));
  expect(await ended).toBe(1);
  expect(output.stderr).toMatch(/^engine: the brain at .* cannot be opened: .*not a database\n$/);
});

test("an engine does not start with a brain of a later version", async () => {
  await using home = await openHome();
  const db = new DatabaseSync(home.brainPath);
  db.exec("PRAGMA user_version = 99");
  db.close();
  const { ended, output } = spawnMain(toEngineEnv(home));
  expect(await ended).toBe(1);
  expect(output.stderr).toContain("version 99");
});

test("a second engine on the same brain refuses to start, and the first one keeps running", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  const { ended, output } = spawnMain(toEngineEnv(home));
  expect(await ended).toBe(1);
  expect(output.stderr).toContain("database is locked");
  expect((await engine.get("/health")).status).toBe(200);
});

test("an engine whose port is taken exits 1 with one clear line", async () => {
  await using home = await openHome();
  await using other = await openHome();
  await using engine = await spawnEngine(home);
  const { ended, output } = spawnMain({ ...toEngineEnv(other), ENGINE_PORT: new URL(engine.url).port });
  expect(await ended).toBe(1);
  expect(output.stderr).toMatch(/^engine: .*EADDRINUSE.*\n$/);
});
