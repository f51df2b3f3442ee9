import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDatabase, type Database } from "../db/client.ts";
import { ensureInstance, recordRuntime } from "../db/instance.ts";
import { deleteTombstone, insertTombstone } from "../db/tombstones.ts";
import { openLog } from "../server/log.ts";
import { openRuntime } from "../server/open-runtime.ts";
import { testConfig } from "./engines/test-config.ts";
import { openTempDir, type TempDir } from "./support/temp-dir.ts";
import { openTestDatabase, type TestDatabase } from "./support/test-database.ts";

const log = openLog({ level: "silent", pretty: false });
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

test("a database that nothing lives on goes wherever the next start says, and one with traces stays", async () => {
  const { db } = client;
  const wants = async (backend: "auto" | "process") => {
    const instance = await ensureInstance(db, randomUUID());
    const config = testConfig({ backend, engineImage: undefined, dataDir: home.path });
    await using runtime = await openRuntime({ db, config, log, instance });
    return runtime.host;
  };
  const elsewhere = { runtimeKind: "docker", runtimeHost: "docker:a-daemon-that-is-gone" };
  await ensureInstance(db, randomUUID());
  await recordRuntime(db, elsewhere);

  // A start that failed, or engines that are destroyed, tie nothing.
  const host = await wants("process");
  expect(host).toMatch(/^process:/);
  expect(await ensureInstance(db, randomUUID())).toMatchObject({ runtimeKind: "process", runtimeHost: host });

  await recordRuntime(db, elsewhere);
  const engineId = randomUUID();
  const { runtimeHost } = elsewhere;
  await insertTombstone(db, {
    engineId,
    productId: randomUUID(),
    userId: "ada",
    volumeName: "v",
    runtimeHost,
  });
  await expect(wants("process")).rejects.toThrow(
    /live on the docker runtime.*run on docker for five minutes/,
  );
  await deleteTombstone(db, engineId);
  expect(await wants("auto")).toBe(host);
});
