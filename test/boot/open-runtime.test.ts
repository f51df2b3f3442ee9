import { randomUUID } from "node:crypto";
import { access, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { openDatabase, type Database } from "../../db/client.ts";
import { ensureInstance, recordRuntime } from "../../db/instance.ts";
import { deleteTombstone, insertTombstone } from "../../db/tombstones.ts";
import { openLog } from "../../server/log.ts";
import { openRuntime, bindRuntime } from "../../server/boot/open-runtime.ts";
import type { EngineRuntime } from "../../server/runtime/engine-runtime.ts";
import { testConfig } from "../engines/test-config.ts";
import { openTempDir, type TempDir } from "../support/temp-dir.ts";
import { openTestDatabase, type TestDatabase } from "../support/test-database.ts";

const log = openLog({ level: "silent", pretty: false });
const ELSEWHERE = { runtimeKind: "docker", runtimeHost: "docker:a-daemon-that-is-gone" };
const engineId = randomUUID();
let home: TempDir;
let database: TestDatabase;
let client: Database;

beforeAll(async () => {
  home = await openTempDir();
  database = await openTestDatabase();
  client = openDatabase({ url: database.url, poolSize: 2, applicationName: "test" });
});
afterAll(async () => {
  await client.close();
  await database[Symbol.asyncDispose]();
  await home.close();
});
beforeEach(async () => {
  await deleteTombstone(client.db, engineId);
  await findInstance();
  await recordRuntime(client.db, ELSEWHERE);
});

const findInstance = async () => ensureInstance(client.db, randomUUID());

/** The steps of a start that concern the runtime. `beforeBind` runs before the start is the sole replica. */
async function start(
  runtimeChoice: "auto" | "docker" | "process",
  beforeBind: (runtime: EngineRuntime) => Promise<void> = async () => {},
): Promise<string> {
  const { db } = client;
  const instance = await findInstance();
  const dockerHost = `unix://${home.path}/no-daemon.sock`;
  const config = testConfig({ runtimeChoice, dockerHost, engineImage: undefined, dataDir: home.path });
  await using runtime = await openRuntime({ db, config, log, instance });
  await beforeBind(runtime);
  await bindRuntime({ db, instance }, runtime);
  return runtime.host;
}

async function expectChanged(runtime: EngineRuntime): Promise<void> {
  await expect(runtime.check()).rejects.toMatchObject({ kind: "changed" });
}

async function leaveTombstone(): Promise<void> {
  const { runtimeHost } = ELSEWHERE;
  const trace = { engineId, productId: randomUUID(), userId: "ada", volumeName: "v", runtimeHost };
  await insertTombstone(client.db, trace);
}

test("a database without engines takes the runtime of the configuration, and records it", async () => {
  const host = await start("process");
  expect(host).toMatch(/^process:/);
  expect(await findInstance()).toMatchObject({ runtimeKind: "process", runtimeHost: host });
  expect(await start("auto")).toBe(host);
  await recordRuntime(client.db, { runtimeKind: "process", runtimeHost: "process:another machine" });
  expect(await start("process")).toBe(host);
});

test("a database with a tombstone keeps its runtime", async () => {
  await leaveTombstone();
  await expect(start("process")).rejects.toThrow(
    /live on the docker runtime.*run on docker for five minutes/,
  );
  await recordRuntime(client.db, { runtimeKind: "process", runtimeHost: "process:another machine" });
  await expect(start("process")).rejects.toThrow("live on process:another machine");
});

test("a start that waited while another replica made engines changes nothing", async () => {
  await expect(start("process", leaveTombstone)).rejects.toThrow(`live on ${ELSEWHERE.runtimeHost}`);
  expect(await findInstance()).toMatchObject(ELSEWHERE);
});

test("a start whose runtime was recorded before it waited changes nothing either", async () => {
  await start("process");
  const move = async () => {
    await recordRuntime(client.db, ELSEWHERE);
    await leaveTombstone();
  };
  await expect(start("process", move)).rejects.toThrow(`live on ${ELSEWHERE.runtimeHost}`);
  expect(await findInstance()).toMatchObject(ELSEWHERE);
});

test("a recorded daemon may be down during a start, with engines or without", async () => {
  for (const prepare of [async () => {}, leaveTombstone]) {
    await prepare();
    expect(await start("docker")).toBe(ELSEWHERE.runtimeHost);
    expect(await findInstance()).toMatchObject(ELSEWHERE);
  }
});

test("a recorded marker is required from the first moment, and is left again by bindRuntime", async () => {
  const host = await start("process");
  const folders = await readdir(home.path, { recursive: true });
  const marker = folders.find((name) => name.includes("marker-"));
  if (marker === undefined) throw new Error("there is no marker");
  await rm(join(home.path, marker));
  expect(await start("process", expectChanged)).toBe(host);
  await access(join(home.path, marker));
});

test("with engines, a start without the marker serves all the same and leaves no marker: an operator has to accept the runtime", async () => {
  await start("process");
  await leaveTombstone();
  const folders = await readdir(home.path, { recursive: true });
  const marker = folders.find((name) => name.includes("marker-"));
  if (marker === undefined) throw new Error("there is no marker");
  await rm(join(home.path, marker));
  await start("process", expectChanged);
  await expect(access(join(home.path, marker))).rejects.toThrow("ENOENT");
});
